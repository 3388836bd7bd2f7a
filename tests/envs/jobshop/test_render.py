from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.render import gantt, gantt_chart
from schedrl.envs.jobshop.solution import Schedule
from schedrl.errors import ConfigError, SolutionError

# Jobs of unequal length, one of them re-entrant, and one operation of zero duration.
INSTANCE = JobShopInstance.from_jobs([[(0, 3), (1, 2), (0, 1)], [(1, 4), (0, 0)]], name="small")
SCHEDULE = Schedule(start_time=np.array([0, 4, 6, 0, 4]))


def test_html_has_a_bar_per_operation_and_the_makespan(tmp_path: Path) -> None:
    gantt(INSTANCE, SCHEDULE, tmp_path / "g.html")
    page = (tmp_path / "g.html").read_text()
    assert len(re.findall(r"<rect [^>]*data-g=", page)) == INSTANCE.operations == 5
    assert "<title>small: makespan 7</title>" in page
    assert "job 0 · 0.2 · M0 · 6 to 7 (1)" in page
    assert not re.search(r"https?://", page)


def test_chart_has_a_lane_per_machine_and_a_colour_per_job() -> None:
    chart = gantt_chart(INSTANCE, SCHEDULE)
    assert chart.lanes == ("M0", "M1") and chart.groups == ("job 0", "job 1")
    assert chart.label == ("0.0", "0.1", "0.2", "1.0", "1.1")
    assert chart.lane.tolist() == [0, 1, 0, 1, 0] and chart.group.tolist() == [0, 0, 0, 1, 1]
    assert chart.marks[0].time == 7


@pytest.mark.parametrize(("suffix", "start"), [(".svg", b"<svg"), (".png", b"\x89PNG")])
def test_suffix_decides_the_format(tmp_path: Path, suffix: str, start: bytes) -> None:
    if suffix == ".png":
        pytest.importorskip("matplotlib")
    gantt(INSTANCE, SCHEDULE, tmp_path / f"g{suffix}")
    assert (tmp_path / f"g{suffix}").read_bytes().startswith(start)


def test_other_suffixes_and_foreign_schedules_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"g.gif: suffix '.gif' is not a picture format"):
        gantt(INSTANCE, SCHEDULE, tmp_path / "g.gif")
    with pytest.raises(SolutionError, match="small: field start_time: 2 values, expected 5"):
        gantt(INSTANCE, Schedule(start_time=np.array([0, 1])), tmp_path / "g.svg")
