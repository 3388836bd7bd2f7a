"""The named sets of routing instances: windows of the second halves of public traces, and generated ones.

The traces are no part of the package. The environment variable ``SCHEDRL_DATA`` names the folder with them. Training
sees first halves alone, and its generators draw from other seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from schedrl.benchmark_data import data_file, data_folder
from schedrl.envs.routing.fleets import load_fleets, named_fleet
from schedrl.envs.routing.generators import GENERATORS, MOONCAKE, capacity_of
from schedrl.envs.routing.trace_readers import read_workload
from schedrl.envs.routing.workload import Workload, clipped, rescaled, route, split_halves, window
from schedrl.families import Suite, SuiteEntry

__all__ = ["AZURE", "CACHE_TOKENS", "PROMPT_CAP", "SUITES", "UNSEEN_FLEETS", "second_half"]

AZURE = "routing/azure/AzureLLMInferenceTrace_conv.csv"
"""file of Azure's conversation trace of 2023 in the folder of benchmark data"""
PROMPT_CAP = 20480
"""longest prompt of the windows of Mooncake's trace, as in DualMap's evaluation"""
CACHE_TOKENS = 1_000_000
"""prefixes that every serving instance of the suites on Mooncake's trace keeps, as in DualMap's evaluation"""
UNSEEN_FLEETS = tuple(name for name in load_fleets() if name.startswith("unseen-"))
"""fleets with types, sizes and numbers that training never draws"""

_WINDOW = 1000
# First number of the seeds (first, k) of each generated set; training draws from other seeds.
_SEED = {"routing-demo": 20261201, "workflows": 20261202, "sessions": 20261203}
# Requests per second around where the reference run's policies fall below their objective.
_RATES = {"homogeneous": (9.0, 11.0, 13.0), "heterogeneous": (11.0, 13.0, 15.0)}
_LOADS = (0.7, 0.9)
_UNSEEN_WINDOWS = 2
# Windows grow with the fleet: each instance serves at least so many requests.
_REQUESTS_PER_INSTANCE = 60


def second_half(suite: str, name: str) -> Workload:
    """Return the second half of a trace in the folder of benchmark data, Mooncake's prompts cut at ``PROMPT_CAP``.

    Raises:
        InstanceError: no data.
    """
    return _second_half(data_file(suite, data_folder(suite, name), name))


@cache
def _second_half(path: Path) -> Workload:
    half = split_halves(read_workload(path))[1]
    return clipped(half, PROMPT_CAP) if len(half.blocks) else half


def _entry(instance: Any) -> SuiteEntry:
    return SuiteEntry(instance=instance, lower_bound=None, best_known=None)


def _on_mooncake(suite: str) -> Callable[[], tuple[SuiteEntry, ...]]:
    """Return the loader of all windows of the second half, each at three rates, on the fleet of the suite's name."""

    @cache
    def load(half: Workload) -> tuple[SuiteEntry, ...]:
        serving = named_fleet(suite, cache_tokens=CACHE_TOKENS)
        windows = [window(half, first=first, count=_WINDOW) for first in range(0, half.requests - _WINDOW + 1, _WINDOW)]
        return tuple(
            _entry(route(rescaled(taken, rate), serving, f"{suite}-{k}-at-{rate:g}"))
            for rate in _RATES[suite]
            for k, taken in enumerate(windows)
        )

    return lambda: load(second_half(suite, MOONCAKE))


def _unseen() -> tuple[SuiteEntry, ...]:
    return _unseen_of(second_half("unseen-fleets", MOONCAKE))


@cache
def _unseen_of(half: Workload) -> tuple[SuiteEntry, ...]:
    entries = []
    for name in UNSEEN_FLEETS:
        serving = named_fleet(name, cache_tokens=CACHE_TOKENS)
        count = max(_WINDOW, _REQUESTS_PER_INSTANCE * len(serving))
        # The windows of a fleet lie as far apart as the half allows.
        starts = np.linspace(0, half.requests - count, _UNSEEN_WINDOWS).astype(int)
        for load in _LOADS:
            for k, first in enumerate(starts):
                taken = window(half, first=int(first), count=count)
                rate = load * capacity_of(taken, serving)
                entries.append(_entry(route(rescaled(taken, rate), serving, f"{name}-{k}-at-{load:g}")))
    return tuple(entries)


def _azure() -> tuple[SuiteEntry, ...]:
    return _azure_of(second_half("azure", AZURE))


@cache
def _azure_of(half: Workload) -> tuple[SuiteEntry, ...]:
    entries = []
    for name in ("homogeneous", "heterogeneous"):
        serving = named_fleet(name)
        for load in _LOADS:
            for k, first in enumerate(np.linspace(0, half.requests - 2 * _WINDOW, 3).astype(int)):
                taken = window(half, first=int(first), count=2 * _WINDOW)
                rate = load * capacity_of(taken, serving)
                instance = route(
                    rescaled(taken, rate), serving, f"azure-{name}-{k}-at-{load:g}", ttft_slo_s=1.0, tpot_slo_s=0.1
                )
                entries.append(_entry(instance))
    return tuple(entries)


def _generated(suite: str, number: int, generator: str, name: str, **options: Any) -> SuiteEntry:
    rng = np.random.default_rng((_SEED[suite], number))
    return _entry(GENERATORS[generator](rng, name=name, **options))


@cache
def _demo() -> tuple[SuiteEntry, ...]:
    kinds = ("gamma", "sessions", "long-context", "agentic")
    return tuple(
        _generated("routing-demo", number, kind, f"demo-{kind}", fleet="demo", requests=80, load=0.9)
        for number, kind in enumerate(kinds)
    )


def _on_both(suite: str, generator: str, **objectives: float) -> Callable[[], tuple[SuiteEntry, ...]]:
    """Return the loader of generated instances on either fleet at two loads, two draws of each."""

    @cache
    def load() -> tuple[SuiteEntry, ...]:
        cases = [(fleet, level) for fleet in ("homogeneous", "heterogeneous") for level in _LOADS for _ in range(2)]
        return tuple(
            _generated(
                suite,
                number,
                generator,
                f"{suite}-{fleet}-{number % 2}-at-{level:g}",
                fleet=fleet,
                load=level,
                requests=_WINDOW,
                **objectives,
            )
            for number, (fleet, level) in enumerate(cases)
        )

    return load


_OF_MOONCAKE = "conversation trace of github.com/kvcache-ai/Mooncake at 3b5a594 (Apache-2.0), its second half"
_OF_AZURE = "conversation trace of 2023 of github.com/Azure/AzurePublicDataset at b469a11 (CC-BY 4.0), its second half"
_SEEDS = "schedrl.envs.routing.generators, seeds in the code"

# Name, summary, source, loader.
_TABLE: tuple[tuple[str, str, str, Callable[[], tuple[SuiteEntry, ...]]], ...] = (
    (
        "homogeneous",
        "6 windows of 1000 requests of Mooncake, prompts cut at 20480, at 9, 11 and 13 requests/s on 8 A100",
        _OF_MOONCAKE,
        _on_mooncake("homogeneous"),
    ),
    (
        "heterogeneous",
        "the same windows at 11, 13 and 15 requests/s on 2 H100, 2 A100, 2 L40S, A10G and L4",
        _OF_MOONCAKE,
        _on_mooncake("heterogeneous"),
    ),
    (
        "unseen-fleets",
        f"{_UNSEEN_WINDOWS} windows of Mooncake at 70 and 90 % of what {len(UNSEEN_FLEETS)} fleets of 3 to 64 instances"
        " sustain, all of types or sizes that training never draws",
        _OF_MOONCAKE,
        _unseen,
    ),
    (
        "azure",
        "3 windows of 2000 short requests without shared prefixes, at 70 and 90 % load, TTFT 1 s and TPOT 0.1 s",
        _OF_AZURE,
        _azure,
    ),
    (
        "routing-demo",
        "4 small ones on 4 unlike instances: bursts, conversations, long prompts, workflows",
        _SEEDS,
        _demo,
    ),
    (
        "workflows",
        "8 sets of 1000 requests of agentic workflows, most of them with a deadline",
        _SEEDS,
        _on_both("workflows", "agentic", ttft_slo_s=2.0),
    ),
    (
        "sessions",
        "8 sets of 1000 requests of conversations that wait for answers, TTFT 1 s and TPOT 0.1 s",
        _SEEDS,
        _on_both("sessions", "sessions", ttft_slo_s=1.0, tpot_slo_s=0.1),
    ),
)

SUITES: Mapping[str, Suite] = MappingProxyType(
    {name: Suite(name=name, summary=summary, source=source, load=load) for name, summary, source, load in _TABLE}
)
