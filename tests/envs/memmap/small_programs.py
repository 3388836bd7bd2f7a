"""Small random programs, and the traced ones that the reference figures are of."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schedrl.devices.memory import MemoryDevice, MemoryLayer
from schedrl.envs.memmap.instance import MemoryMapInstance

NEEDS_DATA = pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no traced programs")


def device(capacity: int, *, flops_per_s: float = 1.0, slow: float = 1.0, fast: float = 10.0) -> MemoryDevice:
    """Return a device of two layers with equal bandwidths for reading and writing, in bytes per second."""
    return MemoryDevice(
        name="two-layers",
        flops_per_s=flops_per_s,
        layers=(
            MemoryLayer(name="slow", read_bytes_per_s=slow, write_bytes_per_s=slow),
            MemoryLayer(name="fast", read_bytes_per_s=fast, write_bytes_per_s=fast, capacity_bytes=capacity),
        ),
    )


V4I_128 = device(128 << 20, flops_per_s=138e12, slow=614e9, fast=6140e9)
V4I_16 = V4I_128.with_capacity(16 << 20)
V5E_48 = device(48 << 20, flops_per_s=197e12, slow=819e9, fast=8190e9)


def traced(name: str, memory: MemoryDevice) -> MemoryMapInstance:
    """Return one of the traced programs without fusion."""
    path = Path(os.environ["SCHEDRL_DATA"]) / "memmap" / "torch_traces" / f"{name}.mmap.json"
    return MemoryMapInstance.from_program(json.loads(path.read_text()), memory=memory, source=str(path))


def random_device(rng: np.random.Generator) -> MemoryDevice:
    """Return a device of two to three layers of every kind that the rules allow."""
    layers = [MemoryLayer(name="slow", read_bytes_per_s=1.0, write_bytes_per_s=float(rng.choice([0.5, 1.0, 2.0])))]
    for number in range(rng.integers(1, 3)):
        layers.append(
            MemoryLayer(
                name=f"fast-{number}",
                read_bytes_per_s=float(rng.uniform(2, 12)),
                write_bytes_per_s=float(rng.uniform(2, 12)),
                capacity_bytes=int(rng.integers(4, 40)),
                alignment_bytes=int(rng.choice([1, 1, 2, 5])),
            )
        )
    return MemoryDevice(
        name="random",
        flops_per_s=1.0,
        layers=tuple(layers),
        overhead_window_bytes=float(rng.choice([0, 0, 0, 6])),
        supply="elapsed" if rng.random() < 0.3 else "idle",
        outstanding_copies=int(rng.choice([0, 1, 2, 40], p=[0.05, 0.15, 0.2, 0.6])),
    )


def random_program(rng: np.random.Generator, *, ops: int | None = None, groups: bool = True) -> MemoryMapInstance:
    """Return a program in which results are read later, some in place, some loops carry a buffer, some run often."""
    count = int(rng.integers(1, 14)) if ops is None else ops
    size = [int(rng.integers(1, 13)) for _ in range(rng.integers(1, 5))]
    program: list[dict[str, object]] = []
    group = 0
    replaced: set[int] = set()
    for _ in range(count):
        alive = [b for b in range(len(size)) if b not in replaced]
        reads = [alive[k] for k in rng.integers(0, len(alive), rng.integers(1, 4))]
        in_place = groups and rng.random() < 0.25
        size.append(size[reads[0]] if in_place and rng.random() < 0.8 else int(rng.integers(1, 13)))
        member = [-1] * (len(reads) + 1)
        if in_place:
            member[0] = member[-1] = group
            group += 1
            replaced.add(reads[0])
        elif groups and group and rng.random() < 0.15:
            member[int(rng.integers(len(reads)))] = int(rng.integers(group))
        program.append(
            {
                "flops": float(rng.choice([0.0, rng.uniform(0, 40)])),
                "reads": reads,
                "writes": [len(size) - 1],
                "read_bytes": [int(rng.integers(0, size[b] + 1)) if rng.random() < 0.2 else size[b] for b in reads],
                "write_bytes": [size[-1]],
                "groups": member,
                "trips": int(rng.integers(1, 4)),
            }
        )
    buffers = [
        {"size": value, "output": bool(rng.random() < 0.15) and b not in replaced} for b, value in enumerate(size)
    ]
    data = {"name": "random", "ops": program, "buffers": buffers}
    return MemoryMapInstance.from_program(data, memory=random_device(rng))


def drop_broken_updates(ops: list[dict[str, Any]], outputs: tuple[int, ...]) -> list[dict[str, Any]]:
    """Take the alias group from every update in place whose operand is needed later, which a program must not have."""
    kept = []
    for t, op in enumerate(ops):
        replaced = op["reads"][-1] if "groups" in op else -1
        later = {b for other in ops[t + 1 :] for b in other["reads"]} | set(outputs)
        kept.append({key: value for key, value in op.items() if key != "groups" or replaced not in later})
    return kept
