"""Seeded generators of programs: known networks on random devices, random layered networks, arbitrary programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from schedrl.devices.memory import MemoryDevice, MemoryLayer
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.programs import load_program, program_names
from schedrl.errors import ConfigError

__all__ = ["GENERATORS", "arbitrary", "layered", "random_device", "traced"]

_MIB = 2**20
# Slow bandwidth and peak rate of the devices in memories.toml lie in this range.
_SLOW_BYTES_PER_S = (3e11, 3e12)
_OPERATIONS_PER_BYTE = (120.0, 600.0)
_FAST_PER_SLOW = (4.0, 20.0)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def random_device(rng: np.random.Generator, capacity_bytes: int, *, alignment_bytes: int = 1) -> MemoryDevice:
    """Return a two-layer device with random rates; the fast layer has 4 to 20 times the slow bandwidth."""
    slow = _log_uniform(rng, *_SLOW_BYTES_PER_S)
    fast = slow * rng.uniform(*_FAST_PER_SLOW)
    return MemoryDevice(
        name="random",
        flops_per_s=slow * _log_uniform(rng, *_OPERATIONS_PER_BYTE),
        layers=(
            MemoryLayer(name="slow", read_bytes_per_s=slow, write_bytes_per_s=slow),
            MemoryLayer(
                name="fast",
                read_bytes_per_s=fast,
                write_bytes_per_s=fast,
                capacity_bytes=capacity_bytes,
                alignment_bytes=alignment_bytes,
            ),
        ),
    )


def traced(
    rng: np.random.Generator,
    *,
    mode: str = "any",
    least_mib: float = 4.0,
    most_mib: float = 192.0,
    largest: int = 10_000,
) -> MemoryMapInstance:
    """Return a packaged network, none of the benchmark's five, on a random device.

    Args:
        rng: source of all choices.
        mode: ``infer``, ``train`` or ``any``.
        least_mib: smallest capacity of the fast layer; drawn log-uniformly.
        most_mib: largest capacity.
        largest: most accesses of a program.

    Raises:
        ConfigError: an unknown mode, capacities out of order, or no program that small.
    """
    if mode not in ("any", "infer", "train"):
        raise ConfigError(f"mode: {mode!r}, expected any, infer or train")
    if not 0 < least_mib <= most_mib:
        raise ConfigError(f"least_mib: {least_mib}, expected more than 0 and at most most_mib {most_mib}")
    device = random_device(rng, max(1, int(_log_uniform(rng, least_mib, most_mib) * _MIB)))
    names = [name for name in program_names(evaluation=False) if mode == "any" or name.endswith(mode)]
    names = [name for name in names if load_program(name, _REFERENCE).accesses <= largest]
    if not names:
        raise ConfigError(f"largest: {largest}, no program has so few accesses")
    chosen = names[int(rng.integers(len(names)))]
    return load_program(chosen, _REFERENCE).with_memory(device, name=f"{chosen}-{rng.integers(10**9):09d}")


_REFERENCE = random_device(np.random.default_rng(0), 16 * _MIB)


def layered(
    rng: np.random.Generator, *, layers: int = 12, skips: float = 0.3, train: bool = False, batch_mib: float = 4.0
) -> MemoryMapInstance:
    """Return a random feed-forward network with skip connections, in inference or as a training step.

    Every layer reads its input and a weight, sometimes an earlier activation too, and writes an activation; sizes
    vary by an order of magnitude. A training step walks back through the layers, reads their activations and weights
    again and writes gradients; weight gradients are outputs.

    Raises:
        ConfigError: fewer than two layers, or a size that is not positive.
    """
    if layers < 2 or batch_mib <= 0 or not 0 <= skips <= 1:
        raise ConfigError(f"layers: {layers}, skips: {skips}, batch_mib: {batch_mib}, expected >= 2, 0 to 1, > 0")
    sizes: list[int] = []
    ops: list[dict[str, Any]] = []
    outputs: set[int] = set()

    def buffer(mib: float) -> int:
        sizes.append(max(64, int(mib * _MIB)))
        return len(sizes) - 1

    activation = [buffer(batch_mib * _log_uniform(rng, 0.3, 3.0))]
    weight: list[int] = []
    reads: list[list[int]] = []
    for k in range(layers):
        weight.append(buffer(batch_mib * _log_uniform(rng, 0.02, 2.0)))
        taken = [activation[-1]]
        if k > 1 and rng.random() < skips:
            taken.append(activation[int(rng.integers(max(0, k - 4), k - 1))])
        reads.append(taken)
        activation.append(buffer(batch_mib * _log_uniform(rng, 0.3, 3.0)))
        ops.append(_op(rng, [*taken, weight[-1]], [activation[-1]], sizes))
    if train:
        _walk_back(rng, (activation, weight, reads), (ops, sizes, outputs))
    else:
        outputs.add(activation[-1])
    total = sum(sizes) / _MIB
    device = random_device(rng, int(_log_uniform(rng, 0.05 * total, 0.6 * total) * _MIB))
    buffers = [{"size": size, "output": number in outputs} for number, size in enumerate(sizes)]
    name = f"layered-{layers}-{rng.integers(10**9):09d}"
    return MemoryMapInstance.from_program({"name": name, "ops": ops, "buffers": buffers}, memory=device)


def _op(rng: np.random.Generator, reads: list[int], writes: list[int], sizes: list[int]) -> dict[str, Any]:
    moved = sum(sizes[b] for b in reads + writes)
    return {"flops": moved * _log_uniform(rng, 5.0, 600.0), "reads": reads, "writes": writes}


def _walk_back(
    rng: np.random.Generator,
    forward: tuple[list[int], list[int], list[list[int]]],
    program: tuple[list[dict[str, Any]], list[int], set[int]],
) -> None:
    activation, weight, reads = forward
    ops, sizes, outputs = program
    gradient: int | None = None
    for k in range(len(weight) - 1, -1, -1):
        incoming = [activation[k + 1]] if gradient is None else [gradient]
        sizes.append(sizes[weight[k]])
        weight_gradient = len(sizes) - 1
        outputs.add(weight_gradient)
        ops.append(_op(rng, [*incoming, *reads[k]], [weight_gradient], sizes))
        if k > 0:
            sizes.append(sizes[activation[k]])
            ops.append(_op(rng, [*incoming, weight[k]], [len(sizes) - 1], sizes))
            gradient = len(sizes) - 1


def arbitrary(
    rng: np.random.Generator, *, ops: int = 12, fast_layers: int = 1, groups: float = 0.1, supply: str = "idle"
) -> MemoryMapInstance:
    """Return a program without structure, for tests of rules rather than of quality.

    Operations read up to three random buffers and write up to two; bytes, trips, alignment, outputs, alias groups of
    an in-place update, the overhead window and up to three layers all vary.

    Raises:
        ConfigError: no operation, or layers outside 1 to 3.
    """
    if ops < 1 or not 1 <= fast_layers <= 3:
        raise ConfigError(f"ops: {ops}, fast_layers: {fast_layers}, expected at least 1, and 1 to 3")
    sizes = rng.integers(1, 40, size=max(2, ops // 3)).tolist()
    records: list[dict[str, Any]] = []
    dead: set[int] = set()
    for t in range(ops):
        alive = [b for b in range(len(sizes)) if b not in dead]
        reads = rng.permutation(alive)[: int(rng.integers(0, 4))].tolist()
        written = int(rng.integers(0 if reads else 1, 3))
        writes = [len(sizes) + k for k in range(written)]
        marks = [-1] * (len(reads) + written)
        if reads and written and rng.random() < groups:
            # An update in place: the result takes over the operand's bytes, which nobody reads again.
            marks[len(reads) - 1] = marks[len(reads)] = t
            sizes.append(sizes[reads[-1]])
            dead.add(reads[-1])
            sizes += rng.integers(1, 40, size=written - 1).tolist()
        else:
            sizes += rng.integers(1, 40, size=written).tolist()
        moved = [int(sizes[b] * rng.choice([1.0, 1.0, 0.5])) for b in reads + writes]
        records.append(
            {
                "flops": float(rng.integers(0, 60)),
                "reads": reads,
                "writes": writes,
                "read_bytes": moved[: len(reads)],
                "write_bytes": moved[len(reads) :],
                "groups": marks,
                "trips": int(rng.choice([1, 1, 1, 3])),
            }
        )
    # Nobody reads what an update replaced: such a buffer cannot be an output either.
    buffers = [{"size": size, "output": bool(rng.random() < 0.2) and b not in dead} for b, size in enumerate(sizes)]
    layers = [MemoryLayer(name="slow", read_bytes_per_s=1.0, write_bytes_per_s=0.8)]
    for k in range(fast_layers):
        rate = float(rng.choice([2.0, 5.0, 10.0])) * (k + 1)
        layers.append(
            MemoryLayer(
                name=f"fast{k + 1}",
                read_bytes_per_s=rate,
                write_bytes_per_s=rate,
                capacity_bytes=int(rng.integers(30, 150)),
                alignment_bytes=int(rng.choice([1, 1, 4])),
            )
        )
    memory = MemoryDevice(
        name="arbitrary",
        flops_per_s=1.0,
        layers=tuple(layers),
        overhead_window_bytes=float(rng.choice([0.0, 0.0, 8.0])),
        supply=supply,  # type: ignore[arg-type]  # checked by the device
        outstanding_copies=int(rng.choice([40, 2])),
    )
    name = f"arbitrary-{ops}-{rng.integers(10**9):09d}"
    return MemoryMapInstance.from_program({"name": name, "ops": records, "buffers": buffers}, memory=memory)


GENERATORS: Mapping[str, Callable[..., MemoryMapInstance]] = MappingProxyType(
    {"layered": layered, "traced": traced, "arbitrary": arbitrary}
)
