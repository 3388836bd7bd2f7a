"""The picture of a shop schedule shows operations and what keeps machines and jobs."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.shop import NO_DUE_DATE, ShopInstance
from schedrl.envs.jobshop.shop_render import shop_gantt, shop_gantt_chart, shop_gantt_svg
from schedrl.envs.jobshop.shop_schedule import ShopSchedule
from schedrl.errors import ConfigError, SolutionError

# Machine 0 is down in [4, 6) and from 90 on, and set up for 2 from family 0 to 1; job 0 is due at 5.
SHOP = ShopInstance(
    name="shop",
    machines=2,
    job_offset=np.array([0, 2, 4]),
    mode_offset=np.array([0, 1, 3, 4, 5]),
    machine=np.array([0, 0, 1, 1, 0]),
    duration=np.array([3, 4, 2, 2, 2]),
    due=np.array([5, NO_DUE_DATE]),
    setup_family=np.array([0, 0, 1, 1]),
    setup=np.array([[[0, 2], [1, 0]], [[0, 0], [0, 0]]]),
    outage_offset=np.array([0, 2, 2]),
    outage_start=np.array([4, 90]),
    outage_end=np.array([6, 99]),
    objective_weights=(0.0, 1.0, 0.0),
)
SCHEDULE = ShopSchedule(mode=np.array([0, 1, 0, 0]), start_time=np.array([1, 4, 0, 6]))
BLOCKING = ShopInstance.from_job_shop(
    JobShopInstance.from_jobs([[(0, 2), (1, 3)], [(1, 5)]], name="blocking"), blocking="swap"
)
BLOCKED = ShopSchedule(mode=np.zeros(3, dtype=np.int64), start_time=np.array([0, 5, 0]))


def titles(svg: str, kind: str) -> list[str]:
    return re.findall(rf'<rect class="{kind}"[^>]*><title>([^<]*)', svg)


def test_shades_of_a_shop() -> None:
    svg = shop_gantt_svg(SHOP, SCHEDULE)
    assert titles(svg, "outage") == ["outage · M0 · 4 to 6 (2)"]
    assert titles(svg, "setup") == ["setup from family 0 to 1 · M0 · 4 to 6 (2)"]
    assert titles(svg, "late") == ["job 0 late by 1 · M1 · 5 to 6 (1)"]
    assert titles(svg, "blocked") == []
    assert len(re.findall(r"<rect [^>]*data-g=", svg)) == SHOP.operations + 3
    ElementTree.fromstring(svg)


def test_blocked_time_is_hatched_in_the_jobs_colour() -> None:
    svg = shop_gantt_svg(BLOCKING, BLOCKED)
    assert titles(svg, "blocked") == ["job 0 blocks · M0 · 2 to 5 (3)"]
    assert 'fill="url(#blocked-0)"' in svg and '<pattern id="blocked-0"' in svg and "blocked-1" not in svg
    ElementTree.fromstring(svg)


def test_shades_lie_where_the_bars_do() -> None:
    root = ElementTree.fromstring(shop_gantt_svg(BLOCKING, BLOCKED))
    rectangles = [node for node in root.iter() if node.get("data-g") is not None]
    first, second, other, blocked = (
        {key: float(node.attrib[key]) for key in ("x", "y", "width")} for node in rectangles
    )
    # Blocked time goes on where the first operation ends, until the second starts when the other ends.
    assert blocked["y"] == first["y"] and second["y"] == other["y"]
    assert blocked["x"] == pytest.approx(first["x"] + first["width"], abs=0.02)
    assert blocked["x"] + blocked["width"] == pytest.approx(second["x"], abs=0.02)


def test_chart_has_lanes_colours_and_missed_due_dates() -> None:
    chart = shop_gantt_chart(SHOP, SCHEDULE)
    assert chart.title == "shop: makespan 8, total weighted tardiness 1"
    assert chart.lanes == ("M0", "M1") and chart.groups == ("job 0", "job 1")
    assert chart.label == ("0.0", "0.1", "1.0", "1.1")
    assert chart.lane.tolist() == [0, 1, 1, 0] and chart.length.tolist() == [3, 2, 2, 2]
    assert [(event.time, event.group, event.label) for event in chart.events] == [(5, 0, "job 0 due 5, late by 1")]


def test_an_interrupted_operation_lasts_through_the_outage() -> None:
    chart = shop_gantt_chart(SHOP, ShopSchedule(mode=SCHEDULE.mode, start_time=np.array([2, 7, 0, 9])))
    assert chart.length.tolist() == [5, 2, 2, 2]


@pytest.mark.parametrize(("suffix", "start"), [(".svg", b"<svg"), (".png", b"\x89PNG"), (".html", b"<!doctype html>")])
@pytest.mark.parametrize(("shop", "schedule"), [(SHOP, SCHEDULE), (BLOCKING, BLOCKED)])
def test_suffix_decides_the_format(
    tmp_path: Path, suffix: str, start: bytes, shop: ShopInstance, schedule: ShopSchedule
) -> None:
    if suffix == ".png":
        pytest.importorskip("matplotlib")
    shop_gantt(shop, schedule, tmp_path / f"g{suffix}")
    assert (tmp_path / f"g{suffix}").read_bytes().startswith(start)


def test_html_needs_no_other_file(tmp_path: Path) -> None:
    shop_gantt(BLOCKING, BLOCKED, tmp_path / "g.html")
    page = (tmp_path / "g.html").read_text()
    assert "<title>blocking: makespan 8</title>" in page and "job 0 blocks" in page and "<script>" in page
    assert not re.search(r"https?://", page)


def test_bitmap_draws_every_shade() -> None:
    pytest.importorskip("matplotlib")
    from schedrl.envs.jobshop.shop_render import shop_gantt_figure

    bars = shop_gantt_figure(SHOP, SCHEDULE).axes[0].patches
    assert len(bars) == SHOP.operations + 3
    assert [bar.get_hatch() for bar in shop_gantt_figure(BLOCKING, BLOCKED).axes[0].patches] == [None] * 3 + ["/////"]


def test_other_suffixes_and_foreign_schedules_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"g.gif: suffix '.gif' is not a picture format"):
        shop_gantt(SHOP, SCHEDULE, tmp_path / "g.gif")
    with pytest.raises(SolutionError, match="field start_time: 2 values, expected 4, one per operation of shop"):
        shop_gantt(SHOP, ShopSchedule(mode=SCHEDULE.mode, start_time=np.array([0, 1])), tmp_path / "g.svg")
