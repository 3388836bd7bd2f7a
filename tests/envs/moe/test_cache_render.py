from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from schedrl.baselines.moe.cache_rules import CacheScheduler
from schedrl.baselines.moe.cache_run import CacheRule
from schedrl.envs.moe.cache_render import cache_chart, cache_timeline
from schedrl.envs.moe.cache_solution import CacheSchedule
from schedrl.errors import ConfigError, SolutionError
from tests.envs.moe.small_caches import cache_of

# Two layers in turn; expert 0 of layer 1 has the number 4. Loads take 2 s, computations 1 s.
CACHE = cache_of([[0], [0], [1], [0]], capacity=2, layers=2)
SCHEDULE = CacheSchedule(
    load_expert=np.array([0, 4, 1], dtype=np.int32),
    evict_expert=np.array([-1, -1, 0], dtype=np.int32),
    load_start_s=np.array([0.0, 2.0, 4.0]),
    compute_start_s=np.array([2.0, 4.0, 6.0, 7.0]),
)


def test_computation_and_loads_are_drawn_side_by_side() -> None:
    chart = cache_chart(CACHE, SCHEDULE)
    # 8 s until the last request ends; one of four experts is there when it is asked for.
    assert chart.title == "c: decode time 8 s, hit rate 25.0 %"
    assert chart.lanes == ("compute", "host link") and chart.groups == ("layer 0", "layer 1")
    assert chart.lane.tolist() == [0] * 4 + [1] * 3
    assert chart.start.tolist() == [2, 4, 6, 7, 0, 2, 4]
    assert chart.length.tolist() == [1] * 4 + [2] * 3
    assert chart.group.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert chart.label == ("token 0", "token 0", "token 1", "token 1", "expert 0", "expert 0", "expert 1")
    assert [(mark.time, mark.label) for mark in chart.marks] == [(8.0, "8 s")]


def test_of_long_schedules_the_first_requests_are_drawn() -> None:
    instance = cache_of([[i % 3] for i in range(500)], capacity=2)
    schedule = (
        CacheScheduler(rule=CacheRule).schedule(instance, time_limit_s=5.0, rng=np.random.default_rng(0)).solution
    )
    assert isinstance(schedule, CacheSchedule)
    chart = cache_chart(instance, schedule)
    assert chart.title.endswith(", first 400 of 500 requests")
    assert int((chart.lane == 0).sum()) == 400
    # LRU never has the next of three in turn; all 400 loads start before the last request drawn ends.
    assert int((chart.lane == 1).sum()) == 400
    assert chart.marks[0].time == pytest.approx(float(schedule.compute_start_s[399]) + 1.0)


@pytest.mark.parametrize("suffix", [".svg", ".html"])
def test_pictures_need_nothing_else(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"p{suffix}"
    cache_timeline(CACHE, SCHEDULE, path)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<svg" if suffix == ".svg" else "<!doctype html>")
    if suffix == ".svg":
        ElementTree.fromstring(text)
    else:
        assert not re.search(r"https?://", text)
    with pytest.raises(ConfigError, match=r"suffix '.gif' is not a picture format"):
        cache_timeline(CACHE, SCHEDULE, tmp_path / "p.gif")


def test_matplotlib_draws_it_too(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    cache_timeline(CACHE, SCHEDULE, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_invalid_schedules_are_refused(tmp_path: Path) -> None:
    early = replace(SCHEDULE, compute_start_s=np.array([1.0, 4.0, 6.0, 7.0]))
    with pytest.raises(SolutionError, match=r"^instance c: expert 0 is not resident throughout request 0"):
        cache_timeline(CACHE, early, tmp_path / "p.svg")
    short = replace(SCHEDULE, compute_start_s=np.array([2.0]))
    with pytest.raises(SolutionError, match=r"^instance c: the schedule computes 1 requests, the instance has 4"):
        cache_chart(CACHE, short)
    assert not (tmp_path / "p.svg").exists()
