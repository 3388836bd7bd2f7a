"""Request routing as the rest of the project sees it."""

from __future__ import annotations

import dataclasses

from schedrl.envs.routing import migration_observation
from schedrl.envs.routing.bounds import bounds
from schedrl.envs.routing.formats import read_instances
from schedrl.envs.routing.generators import GENERATORS
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.migration_simulator import MigrationSimulator
from schedrl.envs.routing.observation import FEATURES, static_graph
from schedrl.envs.routing.render import cost_latency, kv_heatmap, latency_distributions, queue_heatmap, timeline
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
    render=timeline,
    pictures={"Requests without a token": queue_heatmap, "Memory in use": kv_heatmap},
    comparison_pictures={"Latencies": latency_distributions, "Cost and latency": cost_latency},
)

_MIGRATION = dataclasses.replace(
    _ROUTING,
    name="routing:migration",
    title="Request migration",
    features=migration_observation.FEATURES,
    make_simulator=MigrationSimulator,
    benchmark=BenchmarkCase(generator="gamma", size={"requests": 400, "fleet": "heterogeneous", "load": 1.0}),
)

_WORKFLOW = dataclasses.replace(
    _ROUTING,
    name="routing:workflow",
    title="Workflow routing",
    benchmark=BenchmarkCase(generator="agentic", size={"requests": 400, "fleet": "heterogeneous", "load": 0.9}),
)

FAMILY = dataclasses.replace(_ROUTING, games={"migration": _MIGRATION, "workflow": _WORKFLOW})
