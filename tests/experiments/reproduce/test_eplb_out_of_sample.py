"""The study of planners out of sample: its rows, and what its verdicts say of won and lost comparisons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from schedrl.envs.moe.generators import GENERATORS
from schedrl.experiments.reproduce.eplb_out_of_sample import (
    COMPARED,
    HINDSIGHT,
    LEARNED,
    kind_of,
    planners,
    rows_of,
    verdicts_of,
)
from schedrl.schedulers import get_scheduler


def test_every_planner_of_placements_is_in_the_study_and_hindsight_comes_first() -> None:
    names = planners()
    assert names[0] == HINDSIGHT
    assert {LEARNED, *COMPARED} <= set(names)
    assert "moe/lru" not in names
    assert len(set(names)) == len(names)


def test_rows_hold_what_a_plan_costs_and_its_regret() -> None:
    instance: Any = GENERATORS["mixtral"](np.random.default_rng(0), layers=2, windows=3, redundant=4, name="small-7")
    schedulers = {name: get_scheduler(name).make() for name in (HINDSIGHT, "moe/contiguous", "moe/lpt-swap")}
    rows = rows_of("drift", instance, schedulers, 5.0)
    hindsight, contiguous, swapped = rows
    assert kind_of(instance) == "small"
    assert [row["scheduler"] for row in rows] == list(schedulers)
    assert hindsight["regret_to_hindsight"] == 0.0
    for row in rows:
        total = instance.iterations * 3 * float(row["iteration_s"]) + float(row["migration_s"])  # type: ignore[arg-type]
        assert row["total_time"] == pytest.approx(total)
    assert 0 <= swapped["gap_to_bound"] < contiguous["gap_to_bound"]  # type: ignore[operator]
    assert contiguous["moved_bytes"] == 0
    assert contiguous["regret_to_hindsight"] > 0  # type: ignore[operator]


def row(scheduler: str, total_time: float, suite: str = "drift") -> dict[str, Any]:
    return {"suite": suite, "kind": "k", "scheduler": scheduler, "total_time": total_time}


def test_verdicts_name_what_was_lost() -> None:
    rows = [row(name, 2.0) for name in COMPARED] + [row(HINDSIGHT, 1.0), row(LEARNED, 1.5)]
    (verdict,) = verdicts_of([*rows, row("moe/swaps", 0.1, suite="out-of-sample")])
    assert verdict.verdict == "holds"
    assert "regret to hindsight 50.0 %" in verdict.measured
    lost = [item for item in rows if item["scheduler"] != "moe/swaps"]
    (verdict,) = verdicts_of([*lost, row("moe/swaps", 1.4)])
    assert verdict.verdict == "does not hold against moe/swaps"
