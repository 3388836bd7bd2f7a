"""Expert placement as the rest of the project sees it: one family of two problems, with three games over them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from schedrl.envs.moe import cache_observation, rebalance_observation
from schedrl.envs.moe.cache_generators import CACHE_GENERATORS
from schedrl.envs.moe.cache_instance import ExpertCacheInstance
from schedrl.envs.moe.cache_render import cache_timeline
from schedrl.envs.moe.cache_simulator import CacheSimulator
from schedrl.envs.moe.cache_suites import CACHE_SUITES
from schedrl.envs.moe.formats import read_instances
from schedrl.envs.moe.generators import GENERATORS
from schedrl.envs.moe.observation import FEATURES, most_edges, static_graph
from schedrl.envs.moe.problems import AnyInstance, AnySolution, bounds, check, objectives
from schedrl.envs.moe.rebalance_simulator import RebalanceSimulator
from schedrl.envs.moe.render import expert_heatmap, load_heatmap, migration_over_time, traffic_matrix
from schedrl.envs.moe.simulator import Simulator
from schedrl.envs.moe.suites import SUITES
from schedrl.families import BenchmarkCase, Family

__all__ = ["FAMILY"]

_Picture = Callable[[Any, Any, Path], None]


def _of_placements(draw: _Picture) -> _Picture:
    """Return a picture that has nothing to say about caches."""

    @functools.wraps(draw)
    def draw_placement(instance: Any, solution: Any, path: Path) -> None:
        if not isinstance(instance, ExpertCacheInstance):
            draw(instance, solution, path)

    return draw_placement


def _render(instance: Any, solution: Any, path: Path) -> None:
    """Draw device loads before and after a plan, or a cache's computation and loads over time."""
    draw: _Picture = cache_timeline if isinstance(instance, ExpertCacheInstance) else load_heatmap
    draw(instance, solution, path)


_PLACEMENT = Family(
    name="moe",
    title="Expert placement",
    objective="total_time",
    instance_type=AnyInstance,
    solution_type=AnySolution,
    features=FEATURES,
    read_instances=read_instances,
    static_graph=static_graph,
    make_simulator=Simulator,
    check=check,
    objectives=objectives,
    bounds=bounds,
    generators=GENERATORS,
    suites={**SUITES, **CACHE_SUITES},
    benchmark=BenchmarkCase(generator="deepseek-r1-mt", size={"layers": 2}),
    render=_render,
    most_edges=most_edges,
    pictures={
        "Experts on devices": _of_placements(expert_heatmap),
        "Traffic between devices": _of_placements(traffic_matrix),
        "Migration over time": _of_placements(migration_over_time),
    },
)

_REBALANCE = dataclasses.replace(
    _PLACEMENT,
    name="moe:rebalance",
    title="Expert rebalancing",
    features=rebalance_observation.FEATURES,
    static_graph=rebalance_observation.static_graph,
    most_edges=rebalance_observation.most_edges,
    make_simulator=RebalanceSimulator,
    benchmark=BenchmarkCase(generator="qwen15-moe", size={"layers": 2, "switch_every": 6}, policy="moe-rebalance"),
)

_CACHE = dataclasses.replace(
    _PLACEMENT,
    name="moe:cache",
    title="Expert caching",
    objective="decode_time",
    features=cache_observation.FEATURES,
    static_graph=cache_observation.static_graph,
    most_edges=cache_observation.most_edges,
    make_simulator=CacheSimulator,
    generators=CACHE_GENERATORS,
    suites=CACHE_SUITES,
    benchmark=BenchmarkCase(generator="mixtral-decode", size={}, policy="moe-cache"),
    pictures={},
)

FAMILY = dataclasses.replace(_PLACEMENT, games={"rebalance": _REBALANCE, "cache": _CACHE})
