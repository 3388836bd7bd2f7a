"""Memory mapping as the rest of the project sees it: one family of two problems, with three games over them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from schedrl.envs.memmap import order_observation, packing_observation
from schedrl.envs.memmap.bounds import bounds
from schedrl.envs.memmap.explain import explain_plan
from schedrl.envs.memmap.formats import read_instances
from schedrl.envs.memmap.generators import GENERATORS
from schedrl.envs.memmap.observation import FEATURES, most_edges, static_graph
from schedrl.envs.memmap.order_simulator import OrderSimulator
from schedrl.envs.memmap.packing_generators import PACKING_GENERATORS
from schedrl.envs.memmap.packing_simulator import PackingSimulator
from schedrl.envs.memmap.packing_suites import PACKING_SUITES
from schedrl.envs.memmap.plan import MemoryPlan
from schedrl.envs.memmap.render import latency_waterfall, memory_map, supply_curve
from schedrl.envs.memmap.simulator import Simulator
from schedrl.envs.memmap.solution import AnyInstance, AnySolution, check, objectives
from schedrl.envs.memmap.suites import SUITES
from schedrl.families import BenchmarkCase, Family

__all__ = ["FAMILY"]

_Picture = Callable[[Any, Any, Path], None]


def _of_plans(draw: _Picture) -> _Picture:
    """Return a picture that has nothing to say about packings."""

    @functools.wraps(draw)
    def draw_plan(instance: Any, solution: Any, path: Path) -> None:
        if isinstance(solution, MemoryPlan):
            draw(instance, solution, path)

    return draw_plan


_MAPPING = Family(
    name="memmap",
    title="Memory mapping",
    objective="latency",
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
    suites={**SUITES, **PACKING_SUITES},
    benchmark=BenchmarkCase(generator="layered", size={"layers": 40, "train": True}),
    render=memory_map,
    most_edges=most_edges,
    pictures={
        "Supply of copy time": _of_plans(supply_curve),
        "Latency by operation": _of_plans(latency_waterfall),
    },
    explain=explain_plan,
)

_ORDER = dataclasses.replace(
    _MAPPING,
    name="memmap:order",
    title="Memory mapping by the order of placement",
    features=order_observation.FEATURES,
    make_simulator=OrderSimulator,
)

_PACKING = dataclasses.replace(
    _MAPPING,
    name="memmap:packing",
    title="Offset packing",
    objective="peak",
    features=packing_observation.FEATURES,
    static_graph=packing_observation.static_graph,
    most_edges=packing_observation.most_edges,
    make_simulator=PackingSimulator,
    generators=PACKING_GENERATORS,
    suites=PACKING_SUITES,
    benchmark=BenchmarkCase(generator="known-optimum", size={"buffers": 200}),
    pictures={},
)

FAMILY = dataclasses.replace(_MAPPING, games={"order": _ORDER, "packing": _PACKING})
