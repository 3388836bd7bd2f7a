"""Request routing as the rest of the project sees it."""

from __future__ import annotations

import dataclasses

from schedrl.envs.routing.bounds import bounds
from schedrl.envs.routing.formats import read_instances
from schedrl.envs.routing.generators import GENERATORS
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.observation import FEATURES, static_graph
from schedrl.envs.routing.replay import check
from schedrl.envs.routing.simulator import Simulator
from schedrl.envs.routing.solution import RoutingPlan, objectives
from schedrl.envs.routing.suites import SUITES
from schedrl.families import BenchmarkCase, Family

__all__ = ["FAMILY"]

_ROUTING = Family(
    name="routing",
    title="Request routing",
    objective="penalty",
    instance_type=RoutingInstance,
    solution_type=RoutingPlan,
    features=FEATURES,
    read_instances=read_instances,
    static_graph=static_graph,
    make_simulator=Simulator,
    check=check,
    objectives=objectives,
    bounds=bounds,
    generators=GENERATORS,
    suites=SUITES,
    benchmark=BenchmarkCase(generator="long-context", size={"requests": 400, "fleet": "heterogeneous", "load": 0.9}),
    render=lambda instance, plan, path: None,
)

FAMILY = dataclasses.replace(_ROUTING)
