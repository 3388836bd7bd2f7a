import numpy as np

from schedrl.arrays import I32
from schedrl.envs.jobshop.family import FAMILY
from schedrl.envs.jobshop.generators import uniform
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.graphs import DecisionBatch, StaticGraph
from schedrl.rollout import IDENTITY, PolicyScheduler, View


class Uniform:
    """Takes the first candidate when greedy, a random one otherwise."""

    def begin(self, graphs: list[StaticGraph]) -> None:
        self.rows = len(graphs)

    def select(self, decision: DecisionBatch, rng: np.random.Generator | None = None, temperature: float = 1.0) -> I32:
        draw = np.zeros(self.rows) if rng is None else rng.random(self.rows)
        action = np.floor(draw * decision.count).astype(np.int32)
        action[decision.count == 0] = -1
        return action


REVERSED = View(
    name="reversed",
    instance=lambda instance: instance.reversed(),
    solution=lambda instance, schedule: schedule.reversed(instance),
)


def _scheduler(samples: int, views: tuple[View, ...] = (IDENTITY,)) -> PolicyScheduler:
    return PolicyScheduler(
        FAMILY,
        Uniform,
        lambda policy, instances, batch: FAMILY.make_simulator(instances, batch),
        samples=samples,
        views=views,
    )


def _instance() -> JobShopInstance:
    return uniform(np.random.default_rng(5), jobs=8, machines=6)


def test_more_samples_are_better_and_solutions_check() -> None:
    instance = _instance()
    values = []
    for samples in (0, 4, 64):
        result = _scheduler(samples).schedule(instance, time_limit_s=60, rng=np.random.default_rng(0))
        assert result.status == "feasible" and result.decisions > 0
        assert FAMILY.check(instance, result.solution) == []
        assert FAMILY.objectives(instance, result.solution)["makespan"] == result.objective
        values.append(result.objective)
    assert values[2] < values[1]


def test_reversed_view_maps_back() -> None:
    instance = _instance()
    result = _scheduler(0, (REVERSED,)).schedule(instance, time_limit_s=60, rng=np.random.default_rng(0))
    assert FAMILY.check(instance, result.solution) == []
    assert FAMILY.objectives(instance, result.solution)["makespan"] == result.objective
    both = _scheduler(0, (IDENTITY, REVERSED)).schedule(instance, time_limit_s=60, rng=np.random.default_rng(0))
    forward = _scheduler(0).schedule(instance, time_limit_s=60, rng=np.random.default_rng(0))
    assert both.objective == min(result.objective or 0, forward.objective or 0)


def test_same_seed_same_solution() -> None:
    runs = [_scheduler(16).schedule(_instance(), time_limit_s=60, rng=np.random.default_rng(7)) for _ in range(2)]
    assert runs[0].objective == runs[1].objective


def test_no_time_is_a_timeout_without_solution() -> None:
    result = _scheduler(0).schedule(_instance(), time_limit_s=0.0, rng=np.random.default_rng(0))
    assert (result.status, result.solution, result.objective) == ("timeout", None, None)
