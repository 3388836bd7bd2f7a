"""The named sets of instances: packaged networks on devices of three capacities, and generated programs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import numpy as np

from schedrl.devices.memories import get_memory_device
from schedrl.envs.memmap.generators import arbitrary, layered
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.programs import load_program, program_names
from schedrl.families import Suite, SuiteEntry

__all__ = ["CAPACITIES_MIB", "SUITES"]

CAPACITIES_MIB = (16, 48, 128)
# First number of the seeds (first, k) of each set; training draws from other seeds.
_SEED = {"layered": 20260911, "arbitrary": 20260912, "demo": 20260913}


def _entry(instance: MemoryMapInstance) -> SuiteEntry:
    # Bounds are the family's own: the relaxation's, computed when asked for.
    return SuiteEntry(instance=instance, lower_bound=None, best_known=None)


def _mapped(name: str, capacity_mib: int) -> MemoryMapInstance:
    device = get_memory_device("tpu-v4i", capacity_bytes=capacity_mib * 2**20)
    return load_program(name, device).with_memory(device, name=f"{name}-{capacity_mib}mib")


@cache
def _models() -> tuple[SuiteEntry, ...]:
    return tuple(_entry(_mapped(name, mib)) for name in program_names(evaluation=True) for mib in CAPACITIES_MIB)


@cache
def _layered() -> tuple[SuiteEntry, ...]:
    entries = []
    for k in range(20):
        rng = np.random.default_rng((_SEED["layered"], k))
        entries.append(_entry(layered(rng, layers=8 + 2 * k, train=k % 2 == 1)))
    return tuple(entries)


@cache
def _arbitrary() -> tuple[SuiteEntry, ...]:
    entries = []
    for k in range(20):
        rng = np.random.default_rng((_SEED["arbitrary"], k))
        entries.append(_entry(arbitrary(rng, ops=6 + k, fast_layers=1 + k % 2)))
    return tuple(entries)


@cache
def _demo() -> tuple[SuiteEntry, ...]:
    packaged = [_entry(_mapped(name, 16)) for name in ("resnet50-infer", "gpt2-small-infer", "unet-train")]
    rng = np.random.default_rng((_SEED["demo"], 0))
    return (*packaged, _entry(layered(rng, layers=16, train=True)))


SUITES: Mapping[str, Suite] = MappingProxyType(
    {
        suite.name: suite
        for suite in (
            Suite(
                name="models",
                summary="ResNet-50, GPT-2, BERT, AlexNet and a U-Net, inference and training step, 16, 48 and 128 MiB",
                source="plain torch definitions traced by schedrl memmap trace, on a TPU v4i",
                load=_models,
            ),
            Suite(
                name="layered",
                summary="20 random feed-forward networks with skips, inference and training step",
                source="schedrl.envs.memmap.generators.layered, seeds in the code",
                load=_layered,
            ),
            Suite(
                name="arbitrary",
                summary="20 programs without structure, one or two fast layers",
                source="schedrl.envs.memmap.generators.arbitrary, seeds in the code",
                load=_arbitrary,
            ),
            Suite(
                name="demo",
                summary="three packaged networks at 16 MiB and a random training step",
                source="as models and layered",
                load=_demo,
            ),
        )
    }
)
