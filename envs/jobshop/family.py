"""The job shop as the rest of the project sees it."""

from schedrl.envs.jobshop.bounds import bounds
from schedrl.envs.jobshop.formats import read_instances
from schedrl.envs.jobshop.generators import GENERATORS
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.observation import FEATURES, static_graph
from schedrl.envs.jobshop.render import gantt
from schedrl.envs.jobshop.simulator import Simulator
from schedrl.envs.jobshop.solution import Schedule, check, objectives
from schedrl.envs.jobshop.suites import SUITES
from schedrl.families import BenchmarkCase, Family

__all__ = ["FAMILY"]

FAMILY = Family(
    name="jobshop",
    title="Job-shop scheduling",
    objective="makespan",
    instance_type=JobShopInstance,
    solution_type=Schedule,
    features=FEATURES,
    read_instances=read_instances,
    static_graph=static_graph,
    make_simulator=Simulator,
    check=check,
    objectives=objectives,
    bounds=bounds,
    generators=GENERATORS,
    suites=SUITES,
    benchmark=BenchmarkCase(generator="uniform", size={"jobs": 15, "machines": 15}),
    render=gantt,
)
