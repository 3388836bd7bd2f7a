from __future__ import annotations

import os
import time
from collections.abc import Iterator
from itertools import pairwise, permutations, product
from pathlib import Path

import numpy as np
import pytest

from schedrl.baselines.jobshop.shop_exact import ShopCpSat
from schedrl.baselines.jobshop.shop_model import delays_of, integral_weights
from schedrl.envs.jobshop.flexible_format import read_flexible
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.shop import NO_DUE_DATE, Blocking, ShopInstance
from schedrl.envs.jobshop.shop_checker import check_shop
from schedrl.envs.jobshop.shop_schedule import ShopSchedule, objectives
from schedrl.envs.jobshop.suites import load_instance
from schedrl.schedulers import Result

MK01 = Path(os.environ.get("SCHEDRL_DATA", "")) / "jobshop/fjsp/brandimarte/mk01.txt"
VARIANTS = ("plain", "flexible", "setups", "swap", "no-swap", "outages", "flexible-outages-setups", "swap-outages")


def solve(shop: ShopInstance, scheduler: ShopCpSat | None = None, limit_s: float = 30.0) -> Result:
    result = (scheduler or ShopCpSat()).schedule(shop, time_limit_s=limit_s, rng=np.random.default_rng(0))
    assert isinstance(result.solution, ShopSchedule)
    assert check_shop(shop, result.solution) == []
    assert result.objective == pytest.approx(objectives(shop, result.solution)[shop.objective])
    return result


def random_shop(variant: str, seed: int) -> ShopInstance:
    """Return a shop of three jobs with one to three operations on two or three machines."""
    rng = np.random.default_rng(seed)
    machines = int(rng.integers(2, 4))
    lengths = rng.permutation([1, 2, 3])
    operations = int(lengths.sum())
    choices = np.ones(operations, dtype=np.int64)
    if "flexible" in variant:
        choices[rng.choice(operations, size=3, replace=False)] = 2
    modes = int(choices.sum())
    fields: dict[str, object] = {"due": rng.integers(3, 25, size=3), "weight": rng.integers(1, 4, size=3) / 2}
    if "setups" in variant:
        fields |= {"setup_family": rng.integers(0, 2, size=operations), "setup": rng.integers(0, 6, (machines, 2, 2))}
    if "swap" in variant:
        fields["blocking"] = "no-swap" if "no-swap" in variant else "swap"
    if "outages" in variant:
        gaps = rng.integers(1, 5, size=(machines, 6))
        bounds = np.cumsum(gaps, axis=1)
        fields |= {"outage_offset": np.arange(machines + 1) * 3}
        fields |= {"outage_start": bounds[:, ::2].ravel(), "outage_end": bounds[:, 1::2].ravel()}
    weights = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 1.25, 0.1)][seed % 4]
    # Without time, an operation may pass at the edge of others.
    duration = rng.integers(1, 9, size=modes) * (rng.random(modes) < 0.85)
    return ShopInstance(
        name=f"{variant}-{seed}",
        machines=machines,
        job_offset=np.append(0, np.cumsum(lengths)),
        mode_offset=np.append(0, np.cumsum(choices)),
        machine=rng.integers(0, machines, size=modes, dtype=np.int32),
        duration=duration,
        release=rng.integers(0, 4, size=3) * int(rng.random() < 0.5),
        objective_weights=weights,
        **fields,  # type: ignore[arg-type]
    )


class BruteForce:
    """Every choice of modes and of machine sequences, each decoded to its earliest starts by plain relaxation."""

    def __init__(self, shop: ShopInstance) -> None:
        self.shop = shop
        self.job = shop.job.tolist()
        self.duration = shop.actual_duration.tolist()
        outages = [range(a, b) for a, b in zip(shop.outage_start, shop.outage_end, strict=True)]
        self.down = [{t for rows in outages[a:b] for t in rows} for a, b in pairwise(shop.outage_offset.tolist())]
        self.last = set((shop.job_offset[1:] - 1).tolist())

    def optimum(self) -> float:
        shop = self.shop
        ranges = [range(shop.mode_offset[o], shop.mode_offset[o + 1]) for o in range(shop.operations)]
        return min(
            (self.value(end) for modes in product(*ranges) for end in self.decoded(modes)),
            default=float("inf"),
        )

    def value(self, end: list[int]) -> float:
        shop = self.shop
        done = np.array([end[o] for o in sorted(self.last)])
        late = np.where(shop.due < NO_DUE_DATE, np.maximum(0, done - shop.due), 0)
        makespan, tardiness, flow = shop.objective_weights
        return float(
            makespan * done.max() + tardiness * (shop.weight @ late) + flow * (shop.weight @ (done - shop.release))
        )

    def decoded(self, modes: tuple[int, ...]) -> Iterator[list[int]]:
        shop = self.shop
        members = [[o for o in range(shop.operations) if shop.machine[modes[o]] == m] for m in range(shop.machines)]
        orders = [[order for order in permutations(ops) if self.in_job_order(order)] for ops in members]
        for sequences in product(*orders):
            if (end := self.decode(modes, sequences)) is not None:
                yield end

    def in_job_order(self, order: tuple[int, ...]) -> bool:
        return all(a < b or self.job[a] != self.job[b] for i, a in enumerate(order) for b in order[i + 1 :])

    def decode(self, modes: tuple[int, ...], sequences: tuple[tuple[int, ...], ...]) -> list[int] | None:
        """Return completions, None in a deadlock."""
        shop, count = self.shop, self.shop.operations
        setup, family = shop.setup.tolist(), shop.setup_family.tolist()
        after_end = [(o, o + 1, 0) for o in range(count) if o not in self.last]
        after_start: list[tuple[int, int]] = []
        for m, sequence in enumerate(sequences):
            for a, b in pairwise(sequence):
                if shop.blocking == "none" or a in self.last:
                    after_end.append((a, b, setup[m][family[a]][family[b]]))
                elif a + 1 != b:
                    after_start.append((a + 1, b))
        if shop.blocking == "no-swap" and self.cyclic([(a, b) for a, b, _ in after_end] + after_start):
            return None
        start = [int(shop.release[self.job[o]]) for o in range(count)]
        for _ in range(3 * count):
            start = [self.first_up(modes[o], start[o]) for o in range(count)]
            end = [self.run(modes[o], start[o]) for o in range(count)]
            later = list(start)
            for a, b, gap in after_end:
                later[b] = max(later[b], end[a] + gap)
            for a, b in after_start:
                later[b] = max(later[b], later[a])
            if later == start:
                return end
            start = later
        return None

    def cyclic(self, arcs: list[tuple[int, int]]) -> bool:
        left = set(range(self.shop.operations))
        while free := left - {b for a, b in arcs if a in left}:
            left -= free
        return bool(left)

    def first_up(self, mode: int, moment: int) -> int:
        down = self.down[self.shop.machine[mode]]
        while moment in down:
            moment += 1
        return moment

    def run(self, mode: int, moment: int) -> int:
        left, down = self.duration[mode], self.down[self.shop.machine[mode]]
        while left:
            left -= moment not in down
            moment += 1
        return moment


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_brute_force(variant: str) -> None:
    for seed in range(4):
        shop = random_shop(variant, seed)
        result = solve(shop)
        assert result.status == "optimal", shop.name
        assert result.objective == pytest.approx(BruteForce(shop).optimum()), shop.name


@pytest.mark.parametrize("seed", range(4))
def test_total_tardiness_on_a_single_machine(seed: int) -> None:
    rng = np.random.default_rng(seed)
    jobs = 4 + seed
    duration = rng.integers(1, 20, size=jobs)
    due = rng.integers(0, int(duration.sum()), size=jobs)
    shop = ShopInstance(
        name="single",
        machines=1,
        job_offset=np.arange(jobs + 1, dtype=np.int32),
        mode_offset=np.arange(jobs + 1, dtype=np.int32),
        machine=np.zeros(jobs, dtype=np.int32),
        duration=duration,
        due=due,
        objective_weights=(0.0, 1.0, 0.0),
    )
    orders = np.array(list(permutations(range(jobs))))
    optimum = np.maximum(np.cumsum(duration[orders], axis=1) - due[orders], 0).sum(axis=1).min()
    result = solve(shop)
    assert (result.objective, result.lower_bound, result.status) == (optimum, optimum, "optimal")


# Optima without blocking: Fisher and Thompson 1963, Lawrence 1984; with swaps: proved with CP-SAT.
@pytest.mark.parametrize(
    ("name", "blocking", "optimum"), [("ft06", "none", 55), ("la01", "none", 666), ("ft06", "swap", 63)]
)
def test_proves_optima(name: str, blocking: Blocking, optimum: int) -> None:
    result = solve(ShopInstance.from_job_shop(load_instance(name), blocking=blocking))
    assert (result.objective, result.lower_bound, result.status) == (optimum, optimum, "optimal")


@pytest.mark.skipif(not os.environ.get("SCHEDRL_DATA") or not MK01.is_file(), reason="no SCHEDRL_DATA")
def test_proves_the_optimum_of_mk01() -> None:
    result = solve(read_flexible(MK01))
    assert (result.objective, result.lower_bound, result.status) == (40, 40, "optimal")  # Brandimarte 1993


def two_jobs_that_swap(blocking: Blocking) -> ShopInstance:
    jobs = JobShopInstance.from_jobs([[(0, 5), (1, 5)], [(1, 5), (0, 5)]], name="swap")
    return ShopInstance.from_job_shop(jobs, blocking=blocking)


def test_two_jobs_that_need_each_others_machine() -> None:
    assert solve(two_jobs_that_swap("swap")).objective == 10
    # Once both have begun neither could move on, so the second waits until the first has left.
    assert solve(two_jobs_that_swap("no-swap")).objective == 20


def test_keeps_the_limit_and_starts_from_rules_and_hints() -> None:
    shop = ShopInstance.from_job_shop(load_instance("ta21"))
    started = time.perf_counter()
    rule = solve(shop, limit_s=0.0)
    assert (rule.status, rule.lower_bound) == ("feasible", 0.0)
    better = solve(shop, limit_s=1.5)
    assert time.perf_counter() - started < 6.0
    assert better.objective is not None and rule.objective is not None and better.objective <= rule.objective
    assert isinstance(better.solution, ShopSchedule)
    hinted = solve(shop, ShopCpSat(hint=better.solution), limit_s=0.0).objective
    assert hinted is not None and hinted <= better.objective


def test_a_hint_without_swaps_is_taken_in_an_order_that_works() -> None:
    shop = ShopInstance.from_job_shop(load_instance("ft06"), blocking="no-swap")
    found = solve(shop, limit_s=1.0)
    assert isinstance(found.solution, ShopSchedule)
    assert solve(shop, ShopCpSat(hint=found.solution), limit_s=0.0).objective == found.objective


def test_delays_are_those_of_running_hour_by_hour() -> None:
    starts, ends = [3, 7, 9], [5, 9, 10]

    def delay(moment: int, duration: int) -> int:
        left, now = duration, moment
        while left:
            left -= not any(a <= now < b for a, b in zip(starts, ends, strict=True))
            now += 1
        return now - moment - duration

    for duration in range(8):
        found = {
            moment: lag
            for lag, ranges in delays_of(starts, ends, duration, 0, 20).items()
            for low, high in ranges
            for moment in range(low, high + 1)
        }
        up = [moment for moment in range(21) if moment not in (3, 4, 7, 8, 9)]
        assert found == {moment: delay(moment, duration) for moment in up}


def test_weights_become_integers() -> None:
    assert integral_weights([0.5, 1.25, 2.0], 100) == ([2, 5, 8], 4.0)
    integers, scale = integral_weights([1.0, np.pi], 1000)
    assert all(n / scale <= w for n, w in zip(integers, (1.0, np.pi), strict=True))
    assert integers[1] / scale == pytest.approx(np.pi, rel=1e-5)
