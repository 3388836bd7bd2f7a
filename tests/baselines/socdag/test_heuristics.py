from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import instances

from schedrl.baselines.socdag.execution import execute
from schedrl.baselines.socdag.heuristics import HEURISTICS, SCHEDULERS, best_heuristic_schedule, plan
from schedrl.baselines.socdag.list_scheduling import Plan
from schedrl.devices import Device, Link, Platform, PowerState
from schedrl.envs.socdag.generators import GENERATORS
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.solution import DagSchedule, check, objectives
from schedrl.envs.socdag.structured import canonical
from schedrl.envs.socdag.task_graph import TaskGraph
from schedrl.errors import UnknownNameError

RNG = np.random.default_rng(0)
CANONICAL = {
    "heft": 80,
    "heft-append": 80,
    "cpop": 86,
    "peft": 85,
    "lookahead": 76,
    "dls": 91,
    "etf-start": 99,
    "etf-finish": 76,
    "mct": 80,
    "met": 82,
    "olb": 99,
    "min-min": 76,
    "max-min": 97,
    "sufferage": 76,
    "duplex": 76,
    "fastest": 127,
}


@pytest.mark.parametrize(("name", "makespan"), CANONICAL.items())
def test_published_makespans_of_topcuoglus_example(name: str, makespan: int) -> None:
    spec = next(spec for spec in SCHEDULERS if spec.name == f"socdag/{name}")
    instance = canonical()
    result = spec.make().schedule(instance, time_limit_s=1.0, rng=RNG)
    assert isinstance(result.solution, DagSchedule)
    assert check(instance, result.solution) == []
    assert result.objective == makespan
    assert (result.status, result.lower_bound) == ("feasible", 54.0)


# The published values come from an implementation with other tie rules, and most methods hang on ties here: random
# tie orders give Min-Min on Cholesky 8 anything from 256 to 313 and HEFT 275 to 283. The cells left out are those
# that this spread moves by more than 3 per cent (most of MCT, Min-Min, Sufferage and ETF at 8 tiles, PEFT at 4).
TILED = {
    ("cholesky", 4): {"heft": 83, "dls": 85, "min-min": 81, "sufferage": 80, "mct": 83, "etf-start": 135, "met": 116},
    ("cholesky", 8): {"heft": 275, "peft": 254, "dls": 292, "cpop": 286, "met": 536},
    ("lu", 4): {
        "heft": 110,
        "dls": 98,
        "cpop": 105,
        "min-min": 106,
        "sufferage": 113,
        "mct": 113,
        "etf-start": 194,
        "met": 182,
    },
    ("lu", 8): {"heft": 446, "peft": 445, "dls": 436, "cpop": 474, "sufferage": 462, "met": 956},
    ("qr", 4): {"heft": 27, "cpop": 27, "min-min": 30, "sufferage": 30, "mct": 30, "etf-start": 37, "met": 50},
    ("qr", 8): {
        "heft": 108,
        "peft": 107,
        "dls": 105,
        "cpop": 129,
        "min-min": 110,
        "sufferage": 111,
        "mct": 111,
        "met": 276,
    },
}


@pytest.mark.parametrize(("graph", "tiles"), TILED)
def test_published_makespans_of_tiled_factorisations(graph: str, tiles: int) -> None:
    instance = GENERATORS[graph](np.random.default_rng(0), tiles=tiles)
    for name, makespan in TILED[graph, tiles].items():
        tolerance = 0.004 if name == "heft" else 0.03
        assert plan(instance, name).latency == pytest.approx(makespan, rel=tolerance), name


def test_peft_on_cholesky_8() -> None:
    assert plan(GENERATORS["cholesky"](np.random.default_rng(0), tiles=8), "peft").latency == 254.0


@st.composite
def streams(draw: st.DrawFn, *, noise: bool = True) -> SocDagInstance:
    instance = draw(
        instances(jobs=3, max_tasks=6, capacity=True, memory=True, contention=True, noise=noise, deadlines=True)
    )
    return dataclasses.replace(instance, admission_cap=draw(st.integers(0, 2)))


@given(streams())
def test_every_heuristic_gives_valid_schedules(instance: SocDagInstance) -> None:
    for spec in SCHEDULERS:
        result = spec.make().schedule(instance, time_limit_s=1.0, rng=RNG)
        assert isinstance(result.solution, DagSchedule)
        assert check(instance, result.solution) == [], spec.name
        assert result.objective == objectives(instance, result.solution)["latency"]
        assert result.lower_bound is not None and result.objective >= result.lower_bound * (1 - 1e-9)


@given(streams(), st.sampled_from(sorted(HEURISTICS)))
def test_plans_do_not_look_at_noise_or_later_jobs(instance: SocDagInstance, name: str) -> None:
    assert instance.noise is not None
    made, other = plan(instance, name), plan(dataclasses.replace(instance, noise=-instance.noise), name)
    assert made.start.tolist() == other.start.tolist()
    assert made.device.tolist() == other.device.tolist()
    jobs = max(instance.jobs - 1, 1)
    tasks = int(instance.job_offset[jobs])
    shorter = dataclasses.replace(
        instance,
        job_graph=instance.job_graph[:jobs],
        release=instance.release_time[:jobs],
        deadline=None,
        utility=None,
        noise=None,
    )
    assert made.start[:tasks].tolist() == plan(shorter, name).start.tolist()


@given(streams(noise=False))
def test_the_best_heuristic_is_no_worse_than_any_of_its_members(instance: SocDagInstance) -> None:
    best = objectives(instance, best_heuristic_schedule(instance))["latency"]
    members = [plan(instance, name).latency for name in ("heft", "peft", "cpop", "min-min", "dls", "lookahead")]
    assert best == pytest.approx(min(members))
    hurried = best_heuristic_schedule(instance, deadline=-math.inf)
    assert objectives(instance, hurried)["latency"] == pytest.approx(members[0])


# Makespan over planned makespan of a replayed HEFT plan, from an independent implementation's random draws.
@pytest.mark.parametrize(
    ("name", "sigma", "ratio"),
    [("canonical", 0.3, 1.024), ("canonical", 1.0, 1.206), ("cholesky", 0.3, 1.070), ("cholesky", 1.0, 1.359)],
)
def test_replayed_heft_degrades_under_noise_as_published(name: str, sigma: float, ratio: float) -> None:
    rng = np.random.default_rng(1)
    base = canonical() if name == "canonical" else GENERATORS["cholesky"](rng, tiles=8)
    made = plan(base, "heft")
    makespans = []
    for _ in range(300):
        noisy = dataclasses.replace(base, noise_sigma=sigma, noise=rng.standard_normal(base.tasks))
        schedule = execute(noisy, made.device, made.order)
        makespans.append(objectives(noisy, schedule)["makespan"])
    assert np.mean(makespans) / made.latency == pytest.approx(ratio, abs=0.03)


def linear(weights: list[list[int]], sizes: list[int]) -> SocDagInstance:
    """A chain of tasks on unlike devices with equal links."""
    devices = tuple(Device(name=f"d{k}") for k in range(len(weights[0])))
    link = Link(latency_s=0.0, bandwidth_bytes_per_s=1.0)
    graph = TaskGraph(
        name="chain",
        task_names=tuple(f"t{k}" for k in range(len(weights))),
        duration=np.array(weights, dtype=float),
        edge=np.array([(k, k + 1) for k in range(len(weights) - 1)], dtype=np.int32).reshape(-1, 2),
        edge_bytes=np.array(sizes[: len(weights) - 1], dtype=float),
    )
    pairs = itertools.product(devices, repeat=2)
    platform = Platform(devices=devices, counts=(1,) * len(devices), links={(p.name, q.name): link for p, q in pairs})
    return SocDagInstance(name="chain", platform=platform, graphs=(graph,))


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=3, max_size=3), min_size=1, max_size=4),
    st.lists(st.integers(0, 9), min_size=3, max_size=3),
)
def test_bil_is_optimal_on_chains(weights: list[list[int]], sizes: list[int]) -> None:
    # Oh and Ha 1996: on a chain the best imaginary level is the true remaining time.
    instance = linear(weights, sizes)
    order = np.arange(instance.tasks)
    shortest = min(
        objectives(instance, execute(instance, np.array(choice), order))["makespan"]
        for choice in itertools.product(range(3), repeat=instance.tasks)
    )
    assert plan(instance, "bil").latency == shortest


def test_sufferage_places_a_task_without_alternative_first() -> None:
    graph = TaskGraph(
        name="g",
        task_names=("a", "b"),
        duration=np.array([[1.0, 9.0], [5.0, np.inf]]),
        edge=np.zeros((0, 2)),
        edge_bytes=np.zeros(0),
    )
    platform = Platform(devices=(Device(name="x"), Device(name="y")), counts=(1, 1))
    instance = SocDagInstance(name="s", platform=platform, graphs=(graph,))
    made = plan(instance, "sufferage")
    assert (made.device.tolist(), made.start.tolist()) == ([0, 0], [5.0, 0.0])
    made = plan(instance, "min-min")
    assert made.start.tolist() == [0.0, 1.0]


def test_fastest_and_cpop_leave_a_device_that_lacks_a_task() -> None:
    instance = linear([[1, 4], [1, 4], [9, 2]], [1, 1])
    graph = dataclasses.replace(instance.graphs[0], duration=np.array([[1.0, 4.0], [1.0, 4.0], [np.inf, 2.0]]))
    instance = dataclasses.replace(instance, graphs=(graph,))
    assert plan(instance, "fastest").device.tolist() == [1, 1, 1]
    assert plan(instance, "cpop").device.tolist() == [1, 1, 1]
    graph = dataclasses.replace(graph, duration=np.array([[1.0, np.inf], [1.0, np.inf], [np.inf, 2.0]]))
    instance = dataclasses.replace(instance, graphs=(graph,))
    assert plan(instance, "fastest").device.tolist() == [0, 0, 1]
    assert plan(instance, "cpop").device.tolist() == [0, 0, 1]


def energy_instance() -> SocDagInstance:
    """One device with a fast, hungry and a slow, thrifty point, and one with a single point; two equal tasks."""
    states = (PowerState(name="fast", power_w=8.0), PowerState(name="slow", power_w=1.0, speed=0.5))
    devices = (
        Device(name="x", power_states=states),
        Device(name="y", power_states=(PowerState(name="on", power_w=1.0),)),
    )
    graph = TaskGraph(
        name="g",
        task_names=("a", "b"),
        duration=np.array([[2.0, 4.5], [2.0, 4.5]]),
        edge=np.zeros((0, 2)),
        edge_bytes=np.zeros(0),
    )
    return SocDagInstance(name="e", platform=Platform(devices=devices, counts=(1, 1)), graphs=(graph,))


def described(made: Plan) -> tuple[list[int], list[int], list[float]]:
    return made.device.tolist(), made.point.tolist(), made.start.tolist()


def test_energy_delay_products_by_hand() -> None:
    # Products at time 0: x fast 8 * 2^2 = 32, x slow 1 * 4^2 = 16, y 1 * 4.5^2 = 20.25.
    # The absolute one does not see that the second task would wait on x; the relative one counts 8^2 = 64 there.
    instance = energy_instance()
    assert described(plan(instance, "edp-heft")) == ([0, 0], [1, 1], [0.0, 4.0])
    assert described(plan(instance, "edp-heft-relative")) == ([0, 1], [1, 0], [0.0, 0.0])


def test_without_power_figures_the_relative_product_is_heft() -> None:
    instance = canonical()
    assert plan(instance, "edp-heft-relative").start.tolist() == plan(instance, "heft").start.tolist()


def test_an_unknown_heuristic_is_named() -> None:
    with pytest.raises(UnknownNameError, match="unknown heuristic 'hefty'; choose from heft, "):
        plan(canonical(), "hefty")


def test_names_are_unique_and_information_is_online() -> None:
    names = [spec.name for spec in SCHEDULERS]
    assert len(set(names)) == len(names) == len(HEURISTICS) + 1
    assert {spec.information for spec in SCHEDULERS} == {"online"}
