"""Generated programs: they follow their seed, have the sizes asked for, and use no network of the benchmark."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.envs.memmap.generators import GENERATORS, arbitrary, layered, random_device, traced
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.programs import PROGRAMS, load_program, program_names
from schedrl.errors import ConfigError

SEEDS = st.integers(0, 2**32 - 1)
MIB = 2**20
SMALL: dict[str, dict[str, Any]] = {
    "traced": {"mode": "infer", "largest": 300},
    "layered": {"layers": 5, "train": True},
    "arbitrary": {"ops": 7, "fast_layers": 2},
}


def test_names_of_the_generators() -> None:
    assert {"traced", "layered", "arbitrary"} <= set(GENERATORS)


@pytest.mark.parametrize("name", SMALL)
def test_same_seed_same_program(name: str) -> None:
    first, again, other = (GENERATORS[name](np.random.default_rng(seed), **SMALL[name]) for seed in (1, 1, 2))
    assert isinstance(first, MemoryMapInstance)
    assert first == again
    assert first.name == again.name
    assert first != other
    assert first.name != other.name


@given(SEEDS, st.integers(1, 2**40), st.integers(1, 512))
def test_random_devices_stay_within_the_range_of_real_ones(seed: int, capacity: int, alignment: int) -> None:
    device = random_device(np.random.default_rng(seed), capacity, alignment_bytes=alignment)
    slow, fast = device.layers
    assert (fast.capacity_bytes, fast.alignment_bytes, slow.capacity_bytes) == (capacity, alignment, None)
    assert 3e11 <= slow.read_bytes_per_s == slow.write_bytes_per_s <= 3e12
    assert 4.0 <= fast.read_bytes_per_s / slow.read_bytes_per_s <= 20.0 + 1e-9
    assert 120.0 - 1e-9 <= device.flops_per_s / slow.read_bytes_per_s <= 600.0 + 1e-9
    assert device.supply == "idle"


def test_traced_draws_every_network_but_those_of_the_benchmark() -> None:
    instances = [traced(np.random.default_rng(seed)) for seed in range(200)]
    drawn = {instance.name.rpartition("-")[0] for instance in instances}
    assert drawn == set(program_names(evaluation=False))
    assert len(drawn) == 20
    for network in ("resnet50", "gpt2-small", "bert-base", "alexnet", "unet"):
        assert f"{network}-infer" in PROGRAMS and f"{network}-infer" not in drawn
        assert f"{network}-train" in PROGRAMS and f"{network}-train" not in drawn
    capacities = np.array([instance.memory.layers[1].capacity_bytes for instance in instances]) / MIB
    assert 4.0 <= capacities.min() < 5.0 and 150.0 < capacities.max() <= 192.0
    # Log-uniform from 4 to 192: the logarithm has mean 3.32 and deviation 1.12, and 0.08 is that of 200 draws' mean.
    assert np.log(capacities).mean() == pytest.approx(np.log(4 * 192) / 2, abs=3 * 0.08)


def test_no_traced_program_is_that_of_a_benchmark_network() -> None:
    device = random_device(np.random.default_rng(0), MIB)
    flops = {name: float(load_program(name, device).flops.sum()) for name in PROGRAMS}
    held_out = {flops[name] for name in program_names(evaluation=True)}
    assert not held_out & {flops[name] for name in program_names(evaluation=False)}


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_mode_capacity_and_size_of_traced_programs(mode: str) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        instance = traced(rng, mode=mode, least_mib=8.0, most_mib=8.0, largest=400)
        assert instance.name.rpartition("-")[0].endswith(mode)
        assert instance.memory.layers[1].capacity_bytes in (8 * MIB - 1, 8 * MIB)
        assert instance.accesses <= 400


@given(SEEDS, st.integers(2, 30), st.floats(0.0, 1.0))
def test_layered_inference(seed: int, layers: int, skips: float) -> None:
    instance = layered(np.random.default_rng(seed), layers=layers, skips=skips)
    assert (instance.ops, instance.buffers) == (layers, 2 * layers + 1)
    assert np.flatnonzero(instance.output).tolist() == [2 * layers]
    reads = np.bincount(instance.access_op[~instance.access_write], minlength=layers)
    assert ((reads == 2) | (reads == 3)).all()
    assert (instance.size >= 64).all()
    # Every activation is read by the layer after it; skips read others once more.
    assert (instance.definition >= 0).sum() == layers


@given(SEEDS, st.integers(2, 20))
def test_layered_training_step_walks_back(seed: int, layers: int) -> None:
    instance = layered(np.random.default_rng(seed), layers=layers, train=True)
    assert instance.ops == layers + layers + (layers - 1)
    assert int(instance.output.sum()) == layers, "a gradient of each weight"
    gradients = np.flatnonzero(instance.output)
    assert (instance.definition[gradients] >= layers).all()
    weights = [1 + 2 * k for k in range(layers)]
    assert (instance.definition[weights] == -1).all()
    assert instance.size[gradients].tolist() == instance.size[weights[::-1]].tolist()


@given(SEEDS, st.booleans())
def test_the_fast_layer_holds_a_part_of_a_layered_network(seed: int, train: bool) -> None:
    instance = layered(np.random.default_rng(seed), layers=6, train=train)
    capacity, total = instance.memory.layers[1].capacity_bytes, int(instance.size.sum())
    assert capacity is not None
    assert 0.05 * total - 1 <= capacity <= 0.6 * total


def test_skips_add_reads() -> None:
    accesses = [layered(np.random.default_rng(0), layers=30, skips=share).accesses for share in (0.0, 1.0)]
    assert accesses[0] == 90
    # All layers but the first two read one of the activations before their input's.
    assert accesses[1] == 90 + 28


@given(SEEDS, st.integers(1, 20), st.integers(1, 3), st.sampled_from(["idle", "elapsed"]))
def test_arbitrary_programs_have_the_size_asked_for(seed: int, ops: int, fast: int, supply: str) -> None:
    instance = arbitrary(np.random.default_rng(seed), ops=ops, fast_layers=fast, supply=supply)
    assert (instance.ops, instance.layers, instance.memory.supply) == (ops, fast + 1, supply)
    reads = np.bincount(instance.access_op[~instance.access_write], minlength=ops)
    writes = np.bincount(instance.access_op[instance.access_write], minlength=ops)
    assert reads.max() <= 3 and writes.max() <= 2
    assert (reads + writes >= 1).all()


@given(SEEDS)
def test_what_an_update_in_place_replaced_is_read_no_more(seed: int) -> None:
    instance = arbitrary(np.random.default_rng(seed), ops=15, groups=0.7)
    assert instance.access_group is not None
    for group in set(instance.access_group.tolist()) - {-1}:
        read, written = np.flatnonzero(instance.access_group == group).tolist()
        assert (instance.access_write[[read, written]] == [False, True]).all()
        assert instance.access_op[read] == instance.access_op[written] == group
        old, new = instance.access_buffer[[read, written]].tolist()
        assert instance.size[old] == instance.size[new]
        assert instance.access_op[instance.access_buffer == old].max() == group
        assert not instance.output[old]


def test_arbitrary_programs_show_every_rule() -> None:
    instances = [arbitrary(np.random.default_rng(seed), ops=12, fast_layers=1) for seed in range(100)]
    assert any(instance.groups for instance in instances)
    assert any(instance.memory.overhead_window_bytes for instance in instances)
    assert any(instance.memory.outstanding_copies == 2 for instance in instances)
    assert any(instance.memory.layers[1].alignment_bytes == 4 for instance in instances)
    assert any(instance.output.any() for instance in instances)
    assert any((instance.trips == 3).any() for instance in instances)
    assert any((instance.access_bytes != instance.size[instance.access_buffer]).any() for instance in instances)
    assert any((instance.definition == -1).any() for instance in instances)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("traced", {"mode": "both"}, "mode: 'both', expected any, infer or train"),
        ("traced", {"least_mib": 0.0}, "least_mib: 0.0, expected more than 0 and at most most_mib 192.0"),
        (
            "traced",
            {"least_mib": 9.0, "most_mib": 8.0},
            "least_mib: 9.0, expected more than 0 and at most most_mib 8.0",
        ),
        ("traced", {"largest": 3}, "largest: 3, no program has so few accesses"),
        ("layered", {"layers": 1}, "layers: 1, skips: 0.3, batch_mib: 4.0, expected >= 2, 0 to 1, > 0"),
        ("layered", {"skips": 1.5}, "layers: 12, skips: 1.5"),
        ("layered", {"batch_mib": 0.0}, "layers: 12, skips: 0.3, batch_mib: 0.0"),
        ("arbitrary", {"ops": 0}, "ops: 0, fast_layers: 1, expected at least 1, and 1 to 3"),
        ("arbitrary", {"fast_layers": 4}, "ops: 12, fast_layers: 4, expected"),
        ("arbitrary", {"supply": "none"}, "memory device arbitrary: field supply: 'none'"),
    ],
)
def test_bad_options_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        GENERATORS[name](np.random.default_rng(0), **options)
    assert str(caught.value).startswith(message)
