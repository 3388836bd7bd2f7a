"""The job shop as the rest of the project sees it: the static problem, and the shop of any variant as a game."""

from __future__ import annotations

import dataclasses

from schedrl.envs.jobshop import shop_observation
from schedrl.envs.jobshop.flexible_format import read_problems
from schedrl.envs.jobshop.generators import GENERATORS
from schedrl.envs.jobshop.observation import FEATURES, static_graph
from schedrl.envs.jobshop.problems import (
    AnyInstance,
    AnySolution,
    bounds,
    check,
    objectives,
    render,
)
from schedrl.envs.jobshop.shop_generators import SHOP_GENERATORS
from schedrl.envs.jobshop.shop_simulator import Simulator as ShopSimulator
from schedrl.envs.jobshop.shop_suites import SHOP_SUITES
from schedrl.envs.jobshop.simulator import Simulator
from schedrl.envs.jobshop.suites import SUITES
from schedrl.families import BenchmarkCase, Family

__all__ = ["FAMILY"]

_JOB_SHOP = Family(
    name="jobshop",
    title="Job-shop scheduling",
    objective="makespan",
    instance_type=AnyInstance,
    solution_type=AnySolution,
    features=FEATURES,
    read_instances=read_problems,
    static_graph=static_graph,
    make_simulator=Simulator,
    check=check,
    objectives=objectives,
    bounds=bounds,
    generators=GENERATORS,
    suites={**SUITES, **SHOP_SUITES},
    benchmark=BenchmarkCase(generator="uniform", size={"jobs": 15, "machines": 15}),
    render=render,
)

_SHOP = dataclasses.replace(
    _JOB_SHOP,
    name="jobshop:shop",
    title="Shops of any variant",
    features=shop_observation.FEATURES,
    static_graph=shop_observation.static_graph,
    make_simulator=ShopSimulator,
    generators=SHOP_GENERATORS,
    suites=SHOP_SUITES,
    benchmark=BenchmarkCase(generator="flexible", size={"jobs": 15, "machines": 10}, policy="flexible"),
)

FAMILY = dataclasses.replace(_JOB_SHOP, games={"shop": _SHOP})
