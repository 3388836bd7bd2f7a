"""Pictures of routing: what they draw, by hand, and that nothing valid is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.render import (
    cost_chart,
    cost_latency,
    goodput_chart,
    goodput_curves,
    kv_chart,
    kv_heatmap,
    latency_distributions,
    latency_panels,
    queue_chart,
    queue_heatmap,
    timeline,
    timeline_chart,
)
from schedrl.envs.routing.solution import RoutingPlan
from schedrl.envs.routing.stays import DECODE, PREFILL, WAIT, mean_over_bins, stays_of
from schedrl.errors import ConfigError
from tests.envs.routing.small_fleets import server_of, workload_of

# Iterations of a second: both prompts of 100 tokens take two, so the second request waits for the first.
INSTANCE = workload_of([(5.0, 100, 3), (5.0, 100, 5), (9.0, 10, 2)], [server_of("a"), server_of("b")])


def plan_of(**fields: object) -> RoutingPlan:
    plain = {
        "instance": np.array([0, 0, 1]),
        "decode_instance": np.array([-1, -1, -1]),
        "dispatch_s": np.array([5.0, 5.0, 9.0]),
        "rank": np.zeros(3),
        "first_token_s": np.array([7.0, 9.0, 10.0]),
        "finish_s": np.array([9.0, 13.0, 11.0]),
        "hit_tokens": np.zeros(3, dtype=np.int32),
        "preemptions": np.zeros(3, dtype=np.int32),
        "busy_s": np.array([8.0, 2.0]),
        "page_tokens": 1,
    }
    return RoutingPlan(**(plain | fields))  # type: ignore[arg-type]


def test_pieces_by_hand() -> None:
    stays = stays_of(INSTANCE, plan_of())
    rows = list(zip(stays.request.tolist(), stays.kind.tolist(), stays.start.tolist(), stays.end.tolist(), strict=True))
    assert rows == [
        (0, PREFILL, 5.0, 7.0), (0, DECODE, 7.0, 9.0),
        (1, WAIT, 5.0, 7.0), (1, PREFILL, 7.0, 9.0), (1, DECODE, 9.0, 13.0),
        (2, PREFILL, 9.0, 10.0), (2, DECODE, 10.0, 11.0),
    ]  # fmt: skip
    assert stays.first_tokens.tolist() == [0, 100, 0, 0, 100, 0, 10]
    assert stays.last_tokens.tolist() == [100, 103, 0, 100, 105, 10, 12]


def test_requests_that_move_or_are_handed_over_are_drawn_where_they_are() -> None:
    moved = plan_of(
        decode_instance=np.array([1, 1, -1]),
        move_request=np.array([1, 2]),
        move_target=np.array([1, 0]),
        move_s=np.array([11.0, 10.5]),
        move_after=np.array([3, 3]),
    )
    stays = stays_of(INSTANCE, moved)
    # The first is handed over with its first token, the second moves at 11, the third's move came to nothing.
    assert stays.where.tolist() == [0, 1, 0, 0, 0, 1, 1, 1]
    assert stays.start[stays.request == 1].tolist() == [5.0, 7.0, 9.0, 11.0]
    assert stays.first_tokens[5] == stays.last_tokens[4] == pytest.approx(102.5)
    chart = timeline_chart(INSTANCE, moved)
    assert [(arrow.source, arrow.target) for arrow in chart.arrows] == [(0, 1), (4, 5)]


def test_lanes_hold_one_request_at_a_time_and_times_count_from_the_first_arrival() -> None:
    chart = timeline_chart(INSTANCE, plan_of())
    assert chart.lanes == ("a", "", "b")
    assert chart.lane.tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert chart.start.min() == 0.0
    assert chart.marks[0].time == 8.0
    assert chart.title == "w: penalty 0.1495, 100.0 % within objectives"


def test_queue_and_memory_by_hand() -> None:
    queue, memory = (draw(INSTANCE, plan_of()) for draw in (queue_chart, kv_chart))
    assert queue.rows == memory.rows == ("a", "b")
    width = 8.0 / queue.shape[1]
    # Requests x seconds without a token: 2 + 4 at the first instance, 1 at the other.
    assert (queue.panels[0].values.sum(axis=1) * width).tolist() == pytest.approx([6.0, 1.0])
    # Token seconds of 1,000 tokens: ramps to 100 in two seconds, then 101.5 for two, and 102.5 for four.
    assert memory.panels[0].values.sum(axis=1)[0] * width == pytest.approx((100 + 203 + 100 + 410) / 1000)
    assert queue.panels[0].values[0, 0] == pytest.approx(2.0)


def test_means_over_bins_are_exact_for_ramps() -> None:
    one = np.array([1.0])
    means = mean_over_bins(one, 3 * one, 0 * one, 4 * one, np.array([0.0, 2.0, 3.0, 5.0]))
    assert means.tolist() == pytest.approx([0.5, 3.0, 0.0])


@pytest.mark.parametrize("draw", [timeline, queue_heatmap, kv_heatmap])
@pytest.mark.parametrize(("suffix", "start"), [(".svg", b"<svg"), (".png", b"\x89PNG"), (".html", b"<!doctype")])
def test_pictures_are_written_by_suffix(
    draw: Callable[[RoutingInstance, RoutingPlan, Path], None], suffix: str, start: bytes, tmp_path: Path
) -> None:
    if suffix == ".png":
        pytest.importorskip("matplotlib")
    draw(INSTANCE, plan_of(), tmp_path / f"p{suffix}")
    assert (tmp_path / f"p{suffix}").read_bytes().startswith(start)


def test_comparisons_are_written(tmp_path: Path) -> None:
    plans = {"one": plan_of(), "two": plan_of(finish_s=np.array([9.5, 14.0, 12.0]), busy_s=np.array([5.0, 1.0]))}
    latency_distributions(INSTANCE, plans, tmp_path / "l.svg")
    cost_latency(INSTANCE, plans, tmp_path / "c.svg")
    goodput_curves(np.array([1.0, 2.0]), {"one": np.array([1.0, 0.4])}, tmp_path / "g.svg")
    for name in "lcg":
        assert (tmp_path / f"{name}.svg").read_text().startswith("<svg")
    with pytest.raises(ConfigError, match="suffix"):
        cost_latency(INSTANCE, plans, tmp_path / "c.pdf")


def test_latencies_leave_out_single_tokens_and_refused_requests() -> None:
    single = workload_of([(0.0, 100, 1), (0.0, 100, 2), (0.0, 9, 2)], INSTANCE.fleet)
    times = np.array([1.0, 2.0, -1.0])
    plan = plan_of(
        instance=np.array([0, 0, -1]), dispatch_s=np.zeros(3), first_token_s=times, finish_s=np.array([1.0, 2.5, -1.0])
    )
    first, token = latency_panels(single, {"x": plan}).panels
    assert first.lines[0].x.tolist() == [1.0, 1.0, 2.0, 2.0]
    assert set(token.lines[0].x.tolist()) == {500.0}


def test_the_front_has_the_plans_that_none_beats_in_both() -> None:
    fleet = [server_of("a", price_usd_per_h=3.6), server_of("b", price_usd_per_h=3.6)]
    instance = workload_of([(5.0, 100, 3), (5.0, 100, 5), (9.0, 10, 2)], fleet)
    plans = {
        "cheap": plan_of(busy_s=np.array([1.0, 0.0]), finish_s=np.array([11.0, 15.0, 13.0])),
        "fast": plan_of(busy_s=np.array([5.0, 0.0])),
        "worse": plan_of(busy_s=np.array([6.0, 0.0]), finish_s=np.array([10.0, 14.0, 12.0])),
    }
    chart = cost_chart(instance, plans)
    assert [line.label for line in chart.lines] == ["none better in both", "cheap", "fast", "worse"]
    # A second of an instance costs 0.001 USD; latencies are means of 4, 8 and 2 s, and 2 s more.
    assert chart.lines[0].x.tolist()[:3] == pytest.approx([0.001, 0.005, 0.005])
    assert chart.lines[0].y.tolist()[:3] == pytest.approx([20 / 3, 20 / 3, 14 / 3])


def test_nothing_valid_is_refused(tmp_path: Path) -> None:
    one = workload_of([(0.0, 10, 1)])
    base = {"decode_instance": np.array([-1]), "rank": np.zeros(1), "hit_tokens": np.zeros(1, dtype=np.int32),
            "preemptions": np.zeros(1, dtype=np.int32), "busy_s": np.zeros(1), "page_tokens": 1,
            "dispatch_s": np.zeros(1)}  # fmt: skip
    served = RoutingPlan(instance=np.array([0]), first_token_s=np.ones(1), finish_s=np.ones(1), **base)
    refused = RoutingPlan(instance=np.array([-1]), first_token_s=-np.ones(1), finish_s=-np.ones(1), **base)
    for k, plan in enumerate((served, refused)):
        for draw in (timeline, queue_heatmap, kv_heatmap):
            draw(one, plan, tmp_path / f"{draw.__name__}{k}.svg")
        latency_distributions(one, {"x": plan}, tmp_path / f"l{k}.svg")
        cost_latency(one, {"x": plan}, tmp_path / f"c{k}.svg")


def test_long_workloads_show_the_first_requests() -> None:
    requests = [(0.1 * k, 10, 200) for k in range(500)]
    instance = workload_of(requests, [server_of("a", kv_tokens=10**6)])
    sent = instance.arrival_s
    plan = RoutingPlan(
        instance=np.zeros(500, dtype=np.int32), decode_instance=np.full(500, -1), dispatch_s=sent, rank=np.zeros(500),
        first_token_s=sent + 1.0, finish_s=sent + 200.0, hit_tokens=np.zeros(500, dtype=np.int32),
        preemptions=np.zeros(500, dtype=np.int32), busy_s=np.zeros(1), page_tokens=1,
    )  # fmt: skip
    chart = timeline_chart(instance, plan)
    assert len(chart.lanes) <= 72
    assert f"first {len(chart.lanes)} of 500 requests" in chart.title


def test_goodput_curves_name_their_goal() -> None:
    chart = goodput_chart(np.array([1.0, 2.0]), {"a": np.array([1.0, 0.5])}, goal=0.95)
    assert [line.label for line in chart.lines] == ["a", "goal 0.95"]
    with pytest.raises(ConfigError, match="empty"):
        goodput_chart(np.array([1.0]), {})
    with pytest.raises(ConfigError, match="no plan"):
        cost_chart(INSTANCE, {})
    with pytest.raises(ConfigError, match="no plan"):
        latency_panels(INSTANCE, {})
