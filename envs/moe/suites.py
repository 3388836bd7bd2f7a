"""The named sets of expert placements: the EPLB example, plans scored on later windows, loads that change domain.

The public counts are no part of the package. The environment variable ``SCHEDRL_DATA`` names the folder with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np

from schedrl.arrays import I64
from schedrl.benchmark_data import data_file, data_folder
from schedrl.devices import uniform_cluster
from schedrl.envs.moe.generators import GENERATORS
from schedrl.envs.moe.instance import ExpertPlacementInstance, trivial_placement
from schedrl.envs.moe.model import MoEModel, get_model
from schedrl.envs.moe.profiles import get_profile
from schedrl.families import Suite, SuiteEntry

__all__ = ["README_LOADS", "SUITES", "eplb_readme"]

_QWEN = "moe/harmoeny/qwen1.5-moe-a2.7b_expert_counts.csv"

README_LOADS = (
    (90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86),
    (20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27),
)
"""loads of the 12 experts in the two layers of the example in the README of github.com/deepseek-ai/EPLB"""

# First number of the seeds (first, k) of each set; training draws from other seeds.
_SEED = {"out-of-sample": 20261001, "drift": 20261002, "moe-demo": 20261003}
_HISTORY = 4
# A recorded forward pass stands for a window of as many like it: nobody replaces experts after every pass.
_PASSES = 100
_PASSES_PER_DOMAIN = 10
_OUT_OF_SAMPLE = ("deepseek-r1-mt", "adrs-vllm", "qwen15-moe")
_DRIFT = {"deepseek-r1-mt": (6, 7, 8), "adrs-vllm": (6, 7, 8), "qwen3-235b": (6, 7, 8)}


def eplb_readme() -> ExpertPlacementInstance:
    """Return the example of EPLB's README, scored on the loads it is planned from: 16 slots on 2 nodes of 4 GPUs."""
    # The example has loads alone: the sizes are arbitrary.
    model = MoEModel(name="eplb-readme", layers=2, experts=12, top_k=1, hidden=1024, intermediate=512, groups=4)
    return ExpertPlacementInstance(
        name="eplb-readme",
        model=model,
        cluster=uniform_cluster("h100-sxm", nodes=2, per_node=4),
        slots=np.full(8, 2, dtype=np.int32),
        counts=np.array([README_LOADS], dtype=np.int64),
        planned=1,
    )


def _generated(suite: str, number: int, profile: str, **options: int) -> SuiteEntry:
    rng = np.random.default_rng((_SEED[suite], number))
    return _entry(GENERATORS[profile](rng, name=f"{suite}-{profile}-{number}", **options))


def _entry(instance: ExpertPlacementInstance) -> SuiteEntry:
    return SuiteEntry(instance=instance, lower_bound=None, best_known=None)


def _data_file(suite: str) -> Path:
    return data_file(suite, data_folder(suite, _QWEN), _QWEN)


@cache
def _qwen_counts(path: Path) -> Mapping[str, I64]:
    from schedrl.envs.moe.formats import read_harmoeny_counts

    return read_harmoeny_counts(path)


def _measured(name: str, counts: I64) -> ExpertPlacementInstance:
    """Return recorded passes (W, L, E) of Qwen1.5-MoE on its profile's cluster."""
    profile = get_profile("qwen15-moe")
    layers, experts = counts.shape[1:]
    # The recording has 12 of the model's 24 layers.
    model = replace(get_model(profile.model), layers=layers)
    cluster = uniform_cluster(profile.device, nodes=profile.nodes, per_node=profile.per_node)
    slots = experts + profile.redundant
    return ExpertPlacementInstance(
        name=name,
        model=model,
        cluster=cluster,
        slots=np.full(cluster.devices, slots // cluster.devices, dtype=np.int32),
        counts=counts * _PASSES,
        planned=_HISTORY,
        iterations=_PASSES,
        initial=trivial_placement(layers, experts, slots),
    )


@cache
def _readme() -> tuple[SuiteEntry, ...]:
    return (_entry(eplb_readme()),)


def _out_of_sample() -> tuple[SuiteEntry, ...]:
    return _out_of_sample_from(_data_file("out-of-sample"))


@cache
def _out_of_sample_from(path: Path) -> tuple[SuiteEntry, ...]:
    measured = [_entry(_measured(f"qwen15-{name}", counts)) for name, counts in _qwen_counts(path).items()]
    drawn = [
        _generated("out-of-sample", 2 * number + k, profile, layers=8, windows=16, history=_HISTORY)
        for number, profile in enumerate(_OUT_OF_SAMPLE)
        for k in range(2)
    ]
    return (*measured, *drawn)


def _drift() -> tuple[SuiteEntry, ...]:
    return _drift_from(_data_file("drift"))


@cache
def _drift_from(path: Path) -> tuple[SuiteEntry, ...]:
    joined = np.concatenate([counts[:_PASSES_PER_DOMAIN] for counts in _qwen_counts(path).values()])
    cases = [(profile, every) for profile, periods in _DRIFT.items() for every in periods]
    drawn = [
        _generated("drift", number, profile, layers=6, windows=24, history=_HISTORY, switch_every=every)
        for number, (profile, every) in enumerate(cases)
    ]
    return (*drawn, _entry(_measured("qwen15-four-domains", joined)))


@cache
def _demo() -> tuple[SuiteEntry, ...]:
    small = {"windows": 6, "history": 2, "switch_every": 3}
    return (
        *_readme(),
        _generated("moe-demo", 0, "qwen15-moe", layers=3, **small),
        _generated("moe-demo", 1, "mixtral", layers=6, redundant=4, **small),
        _generated("moe-demo", 2, "deepseek-r1-mt", layers=2, nodes=2, **small),
    )


_HARMOENY = "counts of github.com/sacs-epfl/HarMoEny at 563b5a6, a pass taken as a window of 100"
_PROFILES = "profiles of schedrl.envs.moe.profiles, seeds in the code"

# Name, summary, source, loader.
_TABLE: tuple[tuple[str, str, str, Callable[[], tuple[SuiteEntry, ...]]], ...] = (
    (
        "eplb-readme",
        "the worked example of EPLB, 2 layers of 12 experts on 8 devices, scored in sample",
        "README of github.com/deepseek-ai/EPLB",
        _readme,
    ),
    (
        "out-of-sample",
        "4 recordings of Qwen1.5-MoE and 6 generated, each plan scored on the window after those it has seen",
        f"{_HARMOENY}; {_PROFILES}",
        _out_of_sample,
    ),
    (
        "drift",
        "9 generated that change domain every 6 to 8 windows, and Qwen1.5-MoE over four data sets",
        f"{_HARMOENY}; {_PROFILES}",
        _drift,
    ),
    (
        "moe-demo",
        "4 small ones: EPLB's example and three profiles that change domain",
        f"as eplb-readme; {_PROFILES}",
        _demo,
    ),
)

SUITES: Mapping[str, Suite] = MappingProxyType(
    {name: Suite(name=name, summary=summary, source=source, load=load) for name, summary, source, load in _TABLE}
)
