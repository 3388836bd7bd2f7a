"""DAG scheduling as the rest of the project sees it."""

from schedrl.envs.socdag.bounds import bounds
from schedrl.envs.socdag.formats import read_instances
from schedrl.envs.socdag.generators import GENERATORS
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.observation import FEATURES, most_edges, static_graph
from schedrl.envs.socdag.render import gantt, latency_distribution, utilisation
from schedrl.envs.socdag.simulator import Simulator
from schedrl.envs.socdag.solution import DagSchedule, check, objectives
from schedrl.envs.socdag.suites import SUITES
from schedrl.families import BenchmarkCase, Family

__all__ = ["FAMILY"]

FAMILY = Family(
    name="socdag",
    title="SoC and device DAG scheduling",
    objective="latency",
    instance_type=SocDagInstance,
    solution_type=DagSchedule,
    features=FEATURES,
    read_instances=read_instances,
    static_graph=static_graph,
    make_simulator=Simulator,
    check=check,
    objectives=objectives,
    bounds=bounds,
    generators=GENERATORS,
    suites=SUITES,
    benchmark=BenchmarkCase(generator="stream-16pe", size={"jobs": 100, "scale": 150.0}, policy="socdag-stream"),
    render=gantt,
    most_edges=most_edges,
    pictures={"Use of devices and power": utilisation},
    comparison_pictures={"Job latencies": latency_distribution},
)
