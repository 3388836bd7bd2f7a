from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from packing_strategies import NEEDS_DATA, challenging, packing_instances, public

from schedrl.baselines.memmap.packing_outcomes import offset_unit, packing_bound, packing_outcome, peak_of
from schedrl.baselines.memmap.packing_rules import (
    ORDERS,
    SCHEDULERS,
    GreedyPacking,
    best_greedy_packing,
    compile_fitting,
    conflicts,
    section_total,
)
from schedrl.envs.memmap.packing import OffsetPackingInstance, Packing, check_packing, max_live
from schedrl.errors import ConfigError
from schedrl.schedulers import Result

SPECS = {spec.name: spec for spec in SCHEDULERS}


def run(name: str, instance: OffsetPackingInstance) -> Result:
    return SPECS[name].make().schedule(instance, time_limit_s=60.0, rng=np.random.default_rng(0))


def stairs() -> OffsetPackingInstance:
    """Four buffers: a long small one, two that follow each other, and a large one at the end."""
    return OffsetPackingInstance(
        name="stairs",
        lower=np.array([0, 0, 3, 6]),
        upper=np.array([8, 3, 6, 8]),
        size=np.array([1, 4, 3, 5]),
    )


def test_names_are_unique_and_the_promised_ones_exist() -> None:
    table = [f"{fit}-{order}" for fit in ("first-fit", "best-fit", "lowest-first") for order in list(ORDERS)[:6]]
    published = ["tvm-greedy-size", "tvm-greedy-conflicts", "tflite-arena", "xla-heap"]
    assert set(SPECS) == {f"memmap/{name}" for name in table + published}
    assert len(SPECS) == len(SCHEDULERS)


@settings(max_examples=25, deadline=None)
@given(instance=packing_instances(buffers=10))
def test_every_packing_of_every_rule_passes_the_checker(instance: OffsetPackingInstance) -> None:
    for name in SPECS:
        result = run(name, instance)
        assert isinstance(result.solution, Packing), name
        assert check_packing(instance, result.solution) == [], name
        assert result.objective == (result.solution.offset + instance.size).max(), name
        assert result.lower_bound is not None and result.lower_bound <= result.objective, name
        assert (result.status == "optimal") == (result.lower_bound == result.objective), name


@settings(max_examples=100, deadline=None)
@given(instance=packing_instances(buffers=10))
def test_conflicts_and_section_totals_are_those_of_all_pairs(instance: OffsetPackingInstance) -> None:
    lower, upper, size = instance.lower, instance.upper, instance.size
    meets = (lower[:, None] < upper[None, :]) & (lower[None, :] < upper[:, None])
    assert conflicts(instance).tolist() == (meets.sum(axis=1) - 1).tolist()
    live_at = {t: int(size[(lower <= t) & (t < upper)].sum()) for t in range(int(upper.max()))}
    expected = [max(live_at[t] for t in range(a, b)) for a, b in zip(lower.tolist(), upper.tolist(), strict=True)]
    assert section_total(instance).tolist() == expected


def test_orders_of_four_buffers() -> None:
    instance = stairs()
    assert conflicts(instance).tolist() == [3, 1, 1, 1]
    assert section_total(instance).tolist() == [6, 5, 4, 6]
    expected = {
        "size": [3, 1, 2, 0],
        "duration": [0, 1, 2, 3],
        "area": [1, 3, 2, 0],
        "conflicts": [0, 3, 1, 2],
        "start": [1, 0, 2, 3],
        "section": [3, 0, 1, 2],
        "conflicts-size-name": [0, 3, 1, 2],
        "throughout-size-start": [0, 3, 1, 2],
    }
    assert {name: ORDERS[name](instance).tolist() for name in expected} == expected


def test_tvm_stacks_where_first_fit_fills_the_hole() -> None:
    # The second goes above the first; the last meets the second only, and the bytes below that are free by then.
    instance = OffsetPackingInstance(
        name="hole", lower=np.array([0, 1, 2]), upper=np.array([2, 4, 4]), size=np.array([3, 2, 1])
    )
    stacked, filled = run("memmap/tvm-greedy-size", instance), run("memmap/first-fit-size", instance)
    assert isinstance(stacked.solution, Packing) and isinstance(filled.solution, Packing)
    assert (stacked.solution.offset.tolist(), stacked.objective) == ([0, 3, 5], 6.0)
    assert (filled.solution.offset.tolist(), filled.objective, filled.status) == ([0, 3, 0], 5.0, "optimal")


def test_ties_of_tvm_go_by_conflicts_and_then_by_name_backwards() -> None:
    instance = OffsetPackingInstance(
        name="ties", lower=np.array([0, 0, 1]), upper=np.array([1, 2, 2]), size=np.ones(3, int), labels=("a", "b", "c")
    )
    assert ORDERS["size-conflicts-name"](instance).tolist() == [1, 2, 0]


def test_a_peak_above_the_capacity_is_no_solution() -> None:
    instance = stairs()
    tight = OffsetPackingInstance(
        name="tight", lower=instance.lower, upper=instance.upper, size=instance.size, capacity=6
    )
    fits = run("memmap/first-fit-duration", tight)
    assert (fits.status, fits.objective) == ("optimal", 6.0)
    over = np.array([0, 1, 1, 2], dtype=np.int64)
    finished = packing_outcome(tight, over, started=0.0)
    assert (finished.status, finished.solution, finished.objective) == ("infeasible", None, None)
    late = packing_outcome(tight, over, started=0.0, searched=True)
    assert (late.status, late.solution, late.objective, late.lower_bound) == ("timeout", None, None, 6.0)


def test_bound_and_unit_see_given_offsets_and_alignment() -> None:
    instance = OffsetPackingInstance(
        name="given",
        lower=np.zeros(2, int),
        upper=np.ones(2, int),
        size=np.array([8, 12]),
        alignment=np.array([16, 1]),
        fixed_offset=np.array([32, -1]),
    )
    assert (packing_bound(instance), offset_unit(instance)) == (40, 4)
    assert peak_of(instance, best_greedy_packing(instance)) == 40


@pytest.mark.parametrize("passes", [(), (("size", "worst"),), (("colour", "best"),)])
def test_unknown_passes_are_refused(passes: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(ConfigError, match="field passes"):
        GreedyPacking(passes=passes)


def test_the_portfolio_is_no_worse_than_its_first_pass_and_stops_in_time() -> None:
    compile_fitting()
    rng = np.random.default_rng(5)
    lower = rng.integers(0, 1000, 4000)
    instance = OffsetPackingInstance(
        name="large", lower=lower, upper=lower + rng.integers(1, 200, 4000), size=rng.integers(1, 1000, 4000)
    )
    first = run("memmap/first-fit-size", instance)
    started = time.perf_counter()
    hurried = best_greedy_packing(instance, deadline=started)
    assert isinstance(first.solution, Packing) and hurried.tolist() == first.solution.offset.tolist()
    best = best_greedy_packing(instance)
    assert check_packing(instance, Packing(offset=best)) == []
    assert first.objective is not None and peak_of(instance, best) <= first.objective


# Peaks over the most live bytes: largest first of omnimalloc 1.0.0, and lowest first by lifetime, as measured for
# this project before (shared/reference/memmap.md, B4).
LARGEST_FIRST = dict(
    zip("ABCDEFGHIJK", (1.290, 1.354, 1.364, 1.310, 1.369, 1.367, 1.355, 1.293, 1.410, 1.319, 1.290), strict=True)
)
LOWEST_FIRST = dict(
    zip("ABCDEFGHIJK", (1.162, 1.225, 1.262, 1.208, 1.403, 1.271, 1.221, 1.256, 1.396, 1.150, 1.198), strict=True)
)


@NEEDS_DATA
@pytest.mark.parametrize("letter", "ABCDEFGHIJK")
def test_challenging_instances_reach_the_measured_ratios(letter: str) -> None:
    instance = challenging(letter)
    bound = max_live(instance)
    for name, ratios in (("memmap/first-fit-size", LARGEST_FIRST), ("memmap/lowest-first-duration", LOWEST_FIRST)):
        result = run(name, instance)
        assert result.objective is not None and round(result.objective / bound, 3) == ratios[letter], name


@NEEDS_DATA
def test_real_programs_reach_the_measured_ratios() -> None:
    ratios = {
        ("torch_traces", "trace_resnet50_infer"): 1.0,
        ("torch_traces", "trace_gpt2_infer"): 1.0,
        ("torch_traces", "trace_gpt2_train"): 1.0,
        ("torch_traces", "trace_resnet50_train"): 1.0018,
        ("idealloc_suite", "somas_resnet50"): 1.0064,
        ("idealloc_suite", "somas_pangu"): 1.0076,
    }
    for (folder, name), ratio in ratios.items():
        instance = public(folder, name)
        result = run("memmap/first-fit-size", instance)
        assert result.objective is not None
        assert result.objective / max_live(instance) == pytest.approx(ratio, abs=5.1e-5), name


@NEEDS_DATA
def test_best_fit_by_conflicts_packs_28526_buffers_below_the_best_published_peak() -> None:
    instance = public("idealloc_suite", "S_1")
    result = run("memmap/best-fit-conflicts", instance)
    assert result.objective is not None and isinstance(result.solution, Packing)
    assert result.objective / max_live(instance) < 1.0026 < 1.0139
    assert check_packing(instance, result.solution) == []
