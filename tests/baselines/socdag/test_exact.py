from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from brute_force import least_latency
from hypothesis import given, settings
from strategies import instances

from schedrl.baselines.socdag.constraint_model import Grid, pools_of
from schedrl.baselines.socdag.exact import SCHEDULERS, CpSat, replayed, solve_small
from schedrl.baselines.socdag.heuristics import best_heuristic_schedule
from schedrl.baselines.socdag.outcomes import latency
from schedrl.devices import Device, Link, Platform
from schedrl.envs.socdag.generators import GENERATORS
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.soc import stream_3pe
from schedrl.envs.socdag.solution import DagSchedule, check
from schedrl.envs.socdag.structured import canonical
from schedrl.envs.socdag.task_graph import TaskGraph
from schedrl.errors import ConfigError
from schedrl.schedulers import Result


def solve(instance: SocDagInstance, scheduler: CpSat | None = None, limit_s: float = 30.0, seed: int = 0) -> Result:
    solver = CpSat() if scheduler is None else scheduler
    result = solver.schedule(instance, time_limit_s=limit_s, rng=np.random.default_rng(seed))
    assert isinstance(result.solution, DagSchedule)
    assert check(instance, result.solution) == []
    assert result.objective == latency(instance, result.solution)
    assert result.lower_bound is not None and result.lower_bound <= result.objective
    return result


def tiled(name: str, tiles: int) -> SocDagInstance:
    return GENERATORS[name](np.random.default_rng(0), tiles=tiles)


def test_proves_the_canonical_optimum() -> None:
    result = solve(canonical())
    assert (result.objective, result.lower_bound, result.status) == (73.0, 73.0, "optimal")
    assert result.runtime_s < 15.0


# Optima from the measured table of tiled graphs on 2 CPUs and 2 GPUs.
@pytest.mark.parametrize(("name", "optimum"), [("cholesky", 74.0), ("qr", 26.0)])
def test_proves_small_tiled_graphs(name: str, optimum: float) -> None:
    result = solve(tiled(name, 4))
    assert (result.objective, result.status) == (optimum, "optimal")


def test_load_constraint_lifts_the_bound_beyond_the_area_program() -> None:
    result = solve(tiled("cholesky", 8), limit_s=8.0)
    assert result.objective is not None and result.lower_bound is not None
    assert 204 < result.lower_bound <= 236 and result.objective <= 254


@settings(max_examples=60, deadline=None)
@given(instances(max_tasks=4, max_devices=3, capacity=True, memory=True, contention=True))
def test_one_job_equals_brute_force(instance: SocDagInstance) -> None:
    result = solve(instance)
    assert result.objective == pytest.approx(least_latency(instance), rel=1.001e-4, abs=1e-9)
    if len(np.unique(instance.device_type)) == instance.devices:
        assert result.status == "optimal"


@settings(max_examples=25, deadline=None)
@given(instances(max_tasks=3, max_devices=2, jobs=2, capacity=True, memory=True, contention=True))
def test_several_jobs_equal_brute_force(instance: SocDagInstance) -> None:
    assert solve(instance).objective == pytest.approx(least_latency(instance), rel=1.001e-4, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(instances(max_tasks=5, jobs=3, noise=True, deadlines=True, capacity=True, memory=True, contention=True))
def test_schedules_are_valid_in_every_mode(instance: SocDagInstance) -> None:
    solve(instance, limit_s=1.0)


@pytest.mark.parametrize("seed", range(4))
def test_bounds_of_an_inexact_grid_hold(seed: int) -> None:
    instance = GENERATORS["topcuoglu"](np.random.default_rng(seed), tasks=5, devices=2)
    result, optimum = solve(instance), least_latency(instance)
    assert result.lower_bound is not None and result.lower_bound <= optimum * (1 + 1e-12)
    assert result.status == "optimal" and result.objective == pytest.approx(optimum, rel=1e-4)


def test_never_worse_than_the_best_heuristic_even_without_time() -> None:
    instance = tiled("lu", 8)
    began = time.perf_counter()
    result = solve(instance, limit_s=0.5)
    assert time.perf_counter() - began < 10.0
    assert result.objective is not None and result.objective <= latency(instance, best_heuristic_schedule(instance))


def test_starts_from_a_better_hint() -> None:
    instance = tiled("cholesky", 8)
    hint = solve(instance, limit_s=4.0).solution
    assert isinstance(hint, DagSchedule)
    again = solve(instance, CpSat(hint=hint), limit_s=0.01)
    assert again.objective is not None and again.objective <= latency(instance, hint)


def test_plans_under_noise_without_looking_at_it() -> None:
    instance = dataclasses.replace(canonical(), noise_sigma=0.3, noise=np.linspace(-1.5, 1.5, 10))
    other = dataclasses.replace(instance, noise=-np.linspace(-1.5, 1.5, 10))
    results = [solve(case) for case in (instance, other)]
    plans = [result.solution for result in results]
    assert isinstance(plans[0], DagSchedule) and isinstance(plans[1], DagSchedule)
    np.testing.assert_array_equal(plans[0].device, plans[1].device)
    assert results[0].objective != results[1].objective


def test_a_deadline_bounds_the_bound() -> None:
    late = dataclasses.replace(canonical(), deadline=np.array([60.0]))
    result = solve(late)
    # Dropping the job would count as 60, so 73 is not proven best.
    assert (result.objective, result.lower_bound, result.status) == (73.0, 60.0, "feasible")


def test_refuses_a_binding_admission_limit() -> None:
    stream = stream_3pe(np.random.default_rng(0), jobs=5, admission_cap=3)
    with pytest.raises(ConfigError, match="admission_cap: 3 of 5 jobs"):
        CpSat().schedule(stream, time_limit_s=1.0, rng=np.random.default_rng(0))
    solve(dataclasses.replace(stream, admission_cap=5), limit_s=1.0)


def test_several_jobs_start_before_the_first_has_left() -> None:
    # Two jobs of one task, released together: a takes 4, b takes 1. The sum of latencies is least with b first.
    graph = {
        name: TaskGraph(
            name=name,
            task_names=(name,),
            duration=np.array([[taken]]),
            edge=np.zeros((0, 2), dtype=np.int32),
            edge_bytes=np.zeros(0),
        )
        for name, taken in (("a", 4.0), ("b", 1.0))
    }
    instance = SocDagInstance(
        name="two",
        platform=Platform(devices=(Device(name="cpu"),), counts=(1,)),
        graphs=tuple(graph.values()),
        job_graph=np.array([0, 1]),
    )
    result = solve(instance)
    assert (result.objective, result.status) == ((1 + 5) / 2, "optimal")


def test_links_serve_one_transfer_at_a_time() -> None:
    # Source s on x only; t1 and t2 on y only: their data, 3 units each, follow each other over the link.
    inf = np.inf
    instance = SocDagInstance(
        name="fork",
        platform=Platform(
            devices=(Device(name="x"), Device(name="y", capacity=2)),
            counts=(1, 1),
            links={pair: Link(latency_s=0.0, bandwidth_bytes_per_s=1.0) for pair in (("x", "y"), ("y", "x"))},
        ),
        graphs=(
            TaskGraph(
                name="fork",
                task_names=("s", "t1", "t2"),
                duration=np.array([[2.0, inf], [inf, 1.0], [inf, 5.0]]),
                edge=np.array([[0, 1], [0, 2]]),
                edge_bytes=np.array([3.0, 3.0]),
            ),
        ),
        communication="contention",
    )
    assert solve(instance).objective == 2 + 3 + 5
    assert solve(dataclasses.replace(instance, communication="delay")).objective == 2 + 3 + 5
    equal = dataclasses.replace(instance.graphs[0], duration=np.array([[2.0, inf], [inf, 5.0], [inf, 5.0]]))
    assert solve(dataclasses.replace(instance, graphs=(equal,))).objective == 2 + 3 + 3 + 5


def test_replaying_a_schedule_gives_it_back() -> None:
    schedule = best_heuristic_schedule(canonical())
    assert replayed(canonical(), schedule) == schedule


def test_pools_join_what_placement_cannot_tell_apart() -> None:
    assert pools_of(tiled("cholesky", 4)).lanes.tolist() == [2, 2]
    assert pools_of(canonical()).lanes.tolist() == [1, 1, 1]


def test_grid_holds_decimals_exactly_or_rounds_up() -> None:
    grid = Grid.fitting((np.array([0.5, np.inf]), np.array([0.1])), 10.0)
    assert (grid.scale, grid.exact) == (10.0, True)
    assert grid.up(np.array([0.3, np.inf])).tolist() == [3, -1]
    rough = Grid.fitting((np.array([np.pi]),), 10.0)
    assert not rough.exact and rough.up(np.array([np.pi]))[0] == np.ceil(np.pi * 2**20 / 10)


def test_solve_small_teaches_optimal_schedules() -> None:
    schedule = solve_small(canonical(), 20.0, 0)
    assert latency(canonical(), schedule) == 73.0


def test_the_registered_scheduler_makes_one() -> None:
    (spec,) = SCHEDULERS
    assert (spec.name, spec.information, spec.make()) == ("socdag/cp-sat", "clairvoyant", CpSat())
