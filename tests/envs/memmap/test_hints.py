from __future__ import annotations

import numpy as np
import pytest

from schedrl.arrays import I8, I64, Bool
from schedrl.devices.memories import get_memory_device
from schedrl.devices.memory import MemoryDevice, MemoryLayer
from schedrl.envs.memmap.generators import arbitrary, layered
from schedrl.envs.memmap.hints import best_hint
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import fast_bound_s, program_latency_s
from schedrl.envs.memmap.placed_plan import placed_hints
from schedrl.envs.memmap.prices import Hint, shadow_prices
from schedrl.envs.memmap.programs import load_program
from schedrl.envs.memmap.simulator import Simulator

_MIB = 2**20


def occupied(instance: MemoryMapInstance, layer: I8, hold: Bool) -> I64:
    """Return (L, T) bytes that a hint's layers need at each operation, copies and their windows left out."""
    total = np.zeros((instance.layers, instance.ops), dtype=np.int64)
    offset, order = instance.by_buffer
    for b in range(instance.buffers):
        own = order[offset[b] : offset[b + 1]].tolist()
        for k, access in enumerate(own):
            t, size = int(instance.access_op[access]), int(instance.size[b])
            if layer[access] == 0:
                continue
            first = t
            if k and hold[own[k - 1]]:
                first = int(instance.access_op[own[k - 1]]) + 1
            elif k and layer[own[k - 1]] == layer[access] and instance.access_op[own[k - 1]] == t:
                continue
            total[layer[access], first : t + 1] += size
    return total


def programs() -> list[MemoryMapInstance]:
    rng = np.random.default_rng(0)
    small = [arbitrary(rng, ops=int(rng.integers(3, 20)), groups=0.0) for _ in range(30)]
    return small + [layered(rng, layers=10, train=bool(k % 2)) for k in range(6)]


def test_prices_are_zero_where_everything_fits_and_positive_where_it_does_not() -> None:
    layers = (
        MemoryLayer(name="slow", read_bytes_per_s=1.0, write_bytes_per_s=1.0),
        MemoryLayer(name="fast", read_bytes_per_s=10.0, write_bytes_per_s=10.0, capacity_bytes=20),
    )
    ops = [
        {"flops": 0, "reads": [], "writes": [0, 1, 2]},
        {"flops": 0, "reads": [0, 1, 2], "writes": []},
        {"flops": 0, "reads": [], "writes": [3]},
        {"flops": 0, "reads": [3], "writes": []},
    ]
    data = {"name": "p", "ops": ops, "buffers": [{"size": 10} for _ in range(4)]}
    device = MemoryDevice(name="d", flops_per_s=1.0, layers=layers)
    prices, _ = shadow_prices(MemoryMapInstance.from_program(data, memory=device))
    per_op = np.diff(prices.held[1])
    # Three buffers of 10 bytes meet in 20 at the first two operations only.
    assert per_op[:2].sum() > 0
    assert per_op[2:].sum() == pytest.approx(0.0, abs=1e-12)
    roomy, _ = shadow_prices(MemoryMapInstance.from_program(data, memory=device.with_capacity(40)))
    assert roomy.held.max() == pytest.approx(0.0, abs=1e-12)
    assert (roomy.chosen == 1).all()
    tiny, hints = shadow_prices(MemoryMapInstance.from_program(data, memory=device.with_capacity(9)))
    assert (tiny.chosen == 0).all()
    assert all((hint.layer == 0).all() for hint in hints)


@pytest.mark.parametrize("instance", programs(), ids=lambda instance: instance.name)
def test_hints_keep_the_capacity_and_fit_their_places(instance: MemoryMapInstance) -> None:
    prices, hints = shadow_prices(instance)
    capacity = np.array([layer.capacity_bytes or 0 for layer in instance.memory.layers])
    alignment = np.array([layer.alignment_bytes for layer in instance.memory.layers])
    for hint in [*hints, *placed_hints(instance, prices)]:
        used = occupied(instance, hint.layer, hint.hold)
        assert (used[1:] <= capacity[1:, None]).all()
        begins = hint.place >= 0
        tops = hint.place + instance.size[instance.access_buffer]
        assert (tops[begins] <= capacity[hint.layer[begins]]).all()
        assert (hint.place[begins] % alignment[hint.layer[begins]] == 0).all()
        assert program_latency_s(instance, hint.layer) >= fast_bound_s(instance)


def played(instance: MemoryMapInstance, hint: Hint, monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr("schedrl.envs.memmap.simulator.best_hint", lambda _: hint)
    simulator = Simulator([instance], 1)
    simulator.play_advised()
    return simulator.objective(0)


@pytest.mark.parametrize("instance", programs()[-8:], ids=lambda instance: instance.name)
def test_the_best_hint_is_the_one_that_plays_best(instance: MemoryMapInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    prices, relaxed = shadow_prices(instance)
    values = [played(instance, hint, monkeypatch) for hint in [*placed_hints(instance, prices), *relaxed]]
    assert played(instance, best_hint(instance), monkeypatch) == pytest.approx(min(values), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "mib", "milliseconds"),
    # The integer relaxation proves all three optimal.
    [("alexnet-infer", 48, 0.4417), ("gpt2-small-infer", 16, 5.6913), ("bert-base-infer", 16, 3.8893)],
)
def test_advised_play_is_optimal_on_known_networks(name: str, mib: int, milliseconds: float) -> None:
    instance = load_program(name, get_memory_device("tpu-v4i", capacity_bytes=mib * _MIB))
    simulator = Simulator([instance], 1)
    simulator.play_advised()
    assert 1e3 * simulator.objective(0) == pytest.approx(milliseconds, abs=2e-4)
