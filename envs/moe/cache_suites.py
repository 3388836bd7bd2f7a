"""The named sets of request traces: generated ones, and real routes read from a folder of the user's.

The real routes are no part of the package. The environment variable ``SCHEDRL_DATA`` names the folder with them.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from schedrl.arrays import I32
from schedrl.benchmark_data import data_file, data_folder
from schedrl.envs.moe.cache_bounds import cache_bounds
from schedrl.envs.moe.cache_generators import mixtral_decode, zipf_decode
from schedrl.envs.moe.cache_instance import ExpertCacheInstance
from schedrl.errors import InstanceError
from schedrl.families import Suite, SuiteEntry

__all__ = ["CACHE_SUITES", "read_routes"]

# First number of the seeds (first, k); training draws from other seeds.
_DEMO_SEED = 20261125
_DEMO: tuple[tuple[Callable[..., ExpertCacheInstance], Mapping[str, Any]], ...] = (
    (mixtral_decode, {"layers": 4, "tokens": 16}),
    (mixtral_decode, {"layers": 8, "share": 0.25}),
    (mixtral_decode, {"layers": 8}),
    (mixtral_decode, {"layers": 8, "share": 0.75}),
    (mixtral_decode, {"layers": 8, "compute_s": 6e-3}),
    (mixtral_decode, {"layers": 32, "tokens": 16}),
    (zipf_decode, {"layers": 4}),
    (zipf_decode, {"layers": 4, "share": 0.2}),
    (zipf_decode, {"layers": 4, "compute_s": 0.5e-3}),
    (zipf_decode, {"layers": 8, "experts": 64, "top_k": 8, "tokens": 16}),
)
# File, experts, and bytes of one expert at 16 bits (three matrices of hidden times intermediate size).
_ROUTES: Mapping[str, tuple[str, int, float]] = MappingProxyType(
    {
        "olmoe": ("olmoe-1b-7b_layer0_gsm8k_topk.csv", 64, 2.0 * 3 * 2048 * 1024),
        "qwen1.5-moe": ("qwen1.5-moe-a2.7b_layer0_gsm8k_topk.csv", 60, 2.0 * 3 * 2048 * 1408),
    }
)
_SHARES = (0.25, 0.5)
# Half of PCIe 4.0 x16; a token's way through the rest of the model is taken as 2 ms.
_HOST_BYTES_PER_S, _TOKEN_S = 16e9, 2e-3


def read_routes(path: Path, experts: int) -> I32:
    """Return (R, K) the experts of each token of a route file: a head, then ``row,e0,e1,...`` per token.

    An expert that a row names twice counts once; -1 fills the row.

    Raises:
        InstanceError: no such file, no rows, or a row that is not experts; the message names file and line.
    """
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise InstanceError(f"{path}: cannot be read: {error}") from None
    if len(lines) < 2 or len(lines[0]) < 2:
        raise InstanceError(f"{path}:1: expected a head row,e0,... and at least one token")
    rows = np.full((len(lines) - 1, len(lines[0]) - 1), -1, dtype=np.int32)
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(lines[0]):
            raise InstanceError(f"{path}:{number}: {len(line)} columns, expected {len(lines[0])}")
        own: list[int] = []
        for column, text in zip(lines[0][1:], line[1:], strict=True):
            if not text.strip().isdecimal() or not int(text) < experts:
                raise InstanceError(f"{path}:{number}: field {column}: {text!r:.40}, expected 0 to {experts - 1}")
            if int(text) not in own:
                own.append(int(text))
        rows[number - 2, : len(own)] = own
    return rows


def _routes() -> tuple[SuiteEntry, ...]:
    """Read the routes.

    Raises:
        InstanceError: the variable is unset, a file is missing, or one is broken.
    """
    return _route_entries(data_folder("cache-routes", f"moe/routes/{_ROUTES['olmoe'][0]}"))


@cache
def _route_entries(root: Path) -> tuple[SuiteEntry, ...]:
    entries = []
    for model, (file, experts, expert_bytes) in _ROUTES.items():
        requests = read_routes(data_file("cache-routes", root, f"moe/routes/{file}"), experts)
        for share in _SHARES:
            instance = ExpertCacheInstance(
                name=f"{model}-layer0-{round(100 * share)}",
                experts=experts,
                capacity=round(share * experts),
                token=np.arange(len(requests), dtype=np.int32),
                layer=np.zeros(len(requests), dtype=np.int32),
                requests=requests,
                compute_s=np.array([_TOKEN_S]),
                expert_bytes=expert_bytes,
                host_bytes_per_s=_HOST_BYTES_PER_S,
                initial=np.arange(round(share * experts), dtype=np.int32),
            )
            entries.append(_entry(instance))
    return tuple(entries)


@cache
def _demo() -> tuple[SuiteEntry, ...]:
    drawn = (make(np.random.default_rng((_DEMO_SEED, k)), **size) for k, (make, size) in enumerate(_DEMO))
    return tuple(_entry(replace(instance, name=f"cache-demo-{k}")) for k, instance in enumerate(drawn))


def _entry(instance: ExpertCacheInstance) -> SuiteEntry:
    return SuiteEntry(instance=instance, lower_bound=cache_bounds(instance)[0].value, best_known=None)


# Name, summary, source, loader.
_TABLE: tuple[tuple[str, str, str, Callable[[], tuple[SuiteEntry, ...]]], ...] = (
    (
        "cache-demo",
        "10 generated traces of 64 to 512 requests, a fifth to three quarters of the experts fit",
        "schedrl.envs.moe.cache_generators, seeds in the code",
        _demo,
    ),
    (
        "cache-routes",
        "routes of layer 0 on GSM8K: OLMoE with 4471 and Qwen1.5-MoE with 2434 tokens, a quarter or half fits",
        "github.com/KaxitPandya/cerebras-assesment2 and github.com/TotaniYash/vllm_moe_routelogging_patch",
        _routes,
    ),
)

CACHE_SUITES: Mapping[str, Suite] = MappingProxyType(
    {name: Suite(name=name, summary=summary, source=source, load=load) for name, summary, source, load in _TABLE}
)
