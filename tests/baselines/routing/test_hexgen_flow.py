"""Hexgen-Flow: score, urgency and tuning on figures worked by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from schedrl.baselines.routing import hexgen_flow
from schedrl.baselines.routing.hexgen_flow import HexgenFlow, tune_alpha
from schedrl.envs.routing.fleets import fleet
from schedrl.envs.routing.generators import GENERATORS
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.replay import check
from schedrl.envs.routing.solution import RoutingPlan


def router(**options: Any) -> Any:
    """Return Hexgen-Flow on a server that takes 1 s per 1000 prompt tokens and one that takes 2 s; answers are free."""
    instance = RoutingInstance(
        name="two",
        fleet=fleet({"a100-sxm-80gb": 2}),
        arrival_s=np.zeros(1),
        prompt_tokens=np.array([1000]),
        output_tokens=np.ones(1, dtype=np.int32),
    )
    made: Any = HexgenFlow(instance, **options)
    made._prefill, made._decode = np.array([1e-3, 2e-3]), np.zeros(2)
    return made


def view_of(request: int = 0, *, now_s: float = 0.0, prompt: int = 1000, deadline: float = np.inf) -> Any:
    view = SimpleNamespace(
        handed_over=False,
        allowed=np.ones(2, dtype=np.bool_),
        hit_tokens=np.array([0, 800]),
        backlog_s=np.array([1.0, 3.0]),
        prompt_tokens=prompt,
        request=request,
        now_s=now_s,
        ended={},
        ranks=[],
        instance=SimpleNamespace(
            program=np.zeros(8, dtype=np.int32), deadline_s=np.array([deadline]), output_tokens=np.full(8, 50)
        ),
    )
    view.finish_s = lambda r: view.ended.get(r, -1.0)
    view.set_rank = view.ranks.append
    view.least = lambda figure: int(np.argmin(np.where(view.allowed, figure, np.inf)))
    return view


def test_suitability_alone_takes_the_fastest_and_backlog_alone_the_emptiest() -> None:
    fast, even = router(alpha=1.0), router(alpha=0.0)
    assert [fast.choose(view_of(k)) for k in range(3)] == [0, 0, 0]
    # Assigned seconds: 1; then 1 and 2; then 2 and 2; the first of equal ones.
    assert [even.choose(view_of(k)) for k in range(4)] == [0, 1, 0, 0]


def test_score_weighs_both() -> None:
    # With 1 s and no work assigned: W / mean = 2 and 0, so 0.5 * 1 - 0.5 * 2 = -0.5 against 0.5 * 0.5 - 0 = 0.25.
    half = router(alpha=0.5)
    assert [half.choose(view_of(k)) for k in range(2)] == [0, 1]
    # With alpha 0.8: 0.8 - 0.4 = 0.4 against 0.4: equal, so the first; then 0.8 - 0.2 * 2 again.
    mostly = router(alpha=0.81)
    assert [mostly.choose(view_of(k)) for k in range(3)] == [0, 0, 0]


def test_finished_requests_leave_the_backlog_and_teach_lengths() -> None:
    made = router(alpha=0.0)
    made.choose(view_of(0))
    view = view_of(1)
    view.ended = {0: 0.5}
    assert made.choose(view) == 0
    assert made._assigned_s.tolist() == [1.0, 0.0]
    assert made._outputs.value == 50.0


def test_rank_is_the_time_at_which_a_stage_must_begin() -> None:
    # Deadline 10 s, 4 stages expected, 3 to come: a quarter of 10 s less 1 s of its own.
    made = router(alpha=1.0)
    first = view_of(0, now_s=5.0, deadline=10.0)
    made.choose(first)
    assert first.ranks == [pytest.approx(5.0 + 2.5 - 1.0)]
    # 6 s are spent and 2 stages are to come: a third of 4 s less 0.5 s.
    second = view_of(1, now_s=11.0, prompt=500, deadline=10.0)
    made.choose(second)
    assert second.ranks == [pytest.approx(11.0 + 4.0 / 3.0 - 0.5)]


def test_programs_without_a_deadline_have_that_of_the_paper_and_ranks_can_be_left_out() -> None:
    made = router(alpha=1.0)
    view = view_of(0)
    made.choose(view)
    assert view.ranks == [pytest.approx(52.95 / 4 - 1.0)]
    plain = view_of(0)
    router(alpha=1.0, urgency=False).choose(plain)
    assert plain.ranks == []


def test_measured_form_takes_hits_and_backlogs_from_signals() -> None:
    made = router(alpha=1.0, measured=True)
    assert made.stage_s(view_of()).tolist() == pytest.approx([1.0, 0.4])
    assert made.choose(view_of()) == 1
    assert router(alpha=0.0, measured=True).choose(view_of()) == 0


def test_tuning_returns_the_weight_with_the_least_mean_penalty() -> None:
    instances = [
        GENERATORS["agentic"](np.random.default_rng(seed), fleet="demo", requests=60, load=1.2) for seed in (1, 2)
    ]
    best, penalties = tune_alpha(instances, (0.0, 0.5, 1.0))
    assert best == (0.0, 0.5, 1.0)[int(penalties.argmin())]
    alone = [tune_alpha([instance], (0.0, 0.5, 1.0))[1] for instance in instances]
    assert penalties == pytest.approx(np.mean(alone, axis=0))


@pytest.mark.parametrize("kind", ["gamma", "agentic"])
def test_plans_are_valid(kind: str) -> None:
    instance = GENERATORS[kind](np.random.default_rng(3), fleet="demo", requests=80, load=1.5)
    for spec in hexgen_flow.SCHEDULERS:
        result = spec.make().schedule(instance, time_limit_s=60.0, rng=np.random.default_rng(0))
        assert isinstance(result.solution, RoutingPlan)
        assert check(instance, result.solution) == []
