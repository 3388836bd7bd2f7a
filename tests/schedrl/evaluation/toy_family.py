"""A family small enough to solve by hand: order tasks on one machine, minimise the sum of completion times."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from schedrl.families import BenchmarkCase, Bound, Family, SuiteEntry
from schedrl.graphs import FeatureTable
from schedrl.plotting.gantt import GanttChart, save_gantt
from schedrl.schedulers import Information, Result, SchedulerSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    name: str
    durations: tuple[int, ...]

    @property
    def size_label(self) -> str:
        return f"{len(self.durations)} tasks"

    def to_json(self) -> str:
        return json.dumps({"name": self.name, "durations": self.durations})

    @classmethod
    def from_json(cls, text: str, *, source: str = "<json>") -> Self:
        data = json.loads(text)
        return cls(name=data["name"], durations=tuple(data["durations"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    tasks: tuple[int, ...]

    def to_json(self) -> str:
        return json.dumps(self.tasks)

    @classmethod
    def from_json(cls, text: str, *, source: str = "<json>") -> Self:
        return cls(tasks=tuple(json.loads(text)))


def check(instance: Tasks, order: Order) -> list[str]:
    if sorted(order.tasks) != list(range(len(instance.durations))):
        return ["not every task exactly once", "a second violation"]
    return []


def objectives(instance: Tasks, order: Order) -> dict[str, float]:
    ends = np.cumsum([instance.durations[task] for task in order.tasks])
    return {"total_completion": float(ends.sum()), "makespan": float(ends[-1])}


def render(instance: Tasks, order: Order, path: Path) -> None:
    lengths = np.array([instance.durations[task] for task in order.tasks], dtype=np.float64)
    count = len(lengths)
    chart = GanttChart(
        title=instance.name,
        lanes=("machine",),
        groups=tuple(f"task {task}" for task in range(count)),
        lane=np.zeros(count, dtype=np.int32),
        start=np.cumsum(lengths) - lengths,
        length=lengths,
        group=np.array(order.tasks, dtype=np.int32),
        label=tuple(str(task) for task in order.tasks),
    )
    save_gantt(chart, path)


def _no_simulator(*args: Any, **options: Any) -> Any:
    raise NotImplementedError


def _bounds(instance: Tasks) -> list[Bound]:
    return [
        Bound(name="longest", value=float(max(instance.durations)), why="some task is last"),
        Bound(name="sum", value=float(sum(instance.durations)), why="the last task ends then"),
    ]


FAMILY = Family(
    name="toy",
    title="Toy",
    objective="total_completion",
    instance_type=Tasks,
    solution_type=Order,
    features=FeatureTable(node=(), edge_types=(), edge=(), candidate_nodes=(), candidate=(), context=()),
    read_instances=_no_simulator,
    static_graph=_no_simulator,
    make_simulator=_no_simulator,
    check=check,
    objectives=objectives,
    bounds=_bounds,
    generators={},
    suites={},
    benchmark=BenchmarkCase(generator="none", size={}),
    render=render,
)

# a: 1 + 3 + 6 = 10 is optimal, b: 2 + 6 = 8, c: 4 + 9 + 15 = 28.
ENTRIES = [
    SuiteEntry(instance=Tasks(name="a", durations=(3, 1, 2)), lower_bound=10.0, best_known=10.0),
    SuiteEntry(instance=Tasks(name="b", durations=(2, 4)), lower_bound=None, best_known=8.0),
    SuiteEntry(instance=Tasks(name="c <i>", durations=(6, 5, 4)), lower_bound=None, best_known=None),
]


Rule = Callable[[Tasks, float, np.random.Generator], Order | None]


@dataclass(frozen=True, slots=True)
class Ruled:
    """Runs a rule and leaves a trace of its calls in ``$TOY_CALLS``."""

    name: str
    rule: Rule

    def schedule(self, instance: Any, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        if trace := os.environ.get("TOY_CALLS"):
            with Path(trace).open("a", encoding="utf-8") as file:
                file.write(f"{self.name} {instance.name}\n")
        order = self.rule(instance, time_limit_s, rng)
        if order is None:
            return Result(solution=None, objective=None, status="infeasible", runtime_s=0.0)
        # The claimed objective is wrong on purpose: no table may show it.
        return Result(solution=order, objective=1.0, status="feasible", runtime_s=0.0, decisions=len(order.tasks))


@dataclass(frozen=True, slots=True)
class Maker:
    name: str
    rule: Rule

    def __call__(self) -> Ruled:
        return Ruled(self.name, self.rule)


def shortest(instance: Tasks, limit: float, rng: np.random.Generator) -> Order:
    return Order(tasks=tuple(np.argsort(instance.durations, kind="stable").tolist()))


def longest(instance: Tasks, limit: float, rng: np.random.Generator) -> Order:
    return Order(tasks=tuple(np.argsort(instance.durations, kind="stable")[::-1].tolist()))


def shuffled(instance: Tasks, limit: float, rng: np.random.Generator) -> Order:
    return Order(tasks=tuple(rng.permutation(len(instance.durations)).tolist()))


def crashing(instance: Tasks, limit: float, rng: np.random.Generator) -> Order:
    if instance.name == "b":
        raise RuntimeError("no idea\nwhat to do")
    return shortest(instance, limit, rng)


def forgetful(instance: Tasks, limit: float, rng: np.random.Generator) -> Order:
    return Order(tasks=(0, 0))


def slow(instance: Tasks, limit: float, rng: np.random.Generator) -> Order:
    time.sleep(0.3 if instance.name == "a" and limit > 0.1 else 0.0)
    return shortest(instance, limit, rng)


def giving_up(instance: Tasks, limit: float, rng: np.random.Generator) -> None:
    return None


def dying(instance: Tasks, limit: float, rng: np.random.Generator) -> Order:
    if instance.name == "a":
        os._exit(3)
    return shortest(instance, limit, rng)


def spec(
    short: str, rule: Rule, information: Information = "clairvoyant", *, randomised: bool = False
) -> SchedulerSpec:
    name = f"toy/{short}"
    return SchedulerSpec(
        name=name,
        make=Maker(short, rule),
        information=information,
        summary=f"the {short} rule",
        source="toy",
        randomised=randomised,
    )


SPT = spec("spt", shortest, "online")
LPT = spec("lpt", longest)
RANDOM = spec("ppo-sample", shuffled, randomised=True)
CRASH = spec("crash", crashing)
FORGETFUL = spec("forgetful", forgetful)
SLOW = spec("slow", slow)
GIVING_UP = spec("giving-up", giving_up)
DYING = spec("dying", dying)
