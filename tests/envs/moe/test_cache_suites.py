"""The suites of the expert cache, and the reader of routes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from schedrl.envs.moe.cache_bounds import cache_bounds
from schedrl.envs.moe.cache_instance import ExpertCacheInstance
from schedrl.envs.moe.cache_suites import CACHE_SUITES, read_routes
from schedrl.errors import InstanceError


def test_the_demo_is_fixed() -> None:
    entries = CACHE_SUITES["cache-demo"].load()
    assert [entry.instance.name for entry in entries] == [f"cache-demo-{k}" for k in range(10)]
    assert entries is CACHE_SUITES["cache-demo"].load()
    for entry in entries:
        assert isinstance(entry.instance, ExpertCacheInstance)
        assert entry.lower_bound == cache_bounds(entry.instance)[0].value
        assert entry.best_known is None
    steps = [entry.instance.steps for entry in entries if isinstance(entry.instance, ExpertCacheInstance)]
    assert (min(steps), max(steps)) == (64, 512)


@pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no routes to read")
def test_the_routes_are_whole() -> None:
    found = {
        entry.instance.name: entry.instance
        for entry in CACHE_SUITES["cache-routes"].load()
        if isinstance(entry.instance, ExpertCacheInstance)
    }
    assert {name: (i.steps, i.experts, i.capacity, i.requests.shape[1]) for name, i in found.items()} == {
        "olmoe-layer0-25": (4471, 64, 16, 8),
        "olmoe-layer0-50": (4471, 64, 32, 8),
        "qwen1.5-moe-layer0-25": (2434, 60, 15, 4),
        "qwen1.5-moe-layer0-50": (2434, 60, 30, 4),
    }
    assert found["qwen1.5-moe-layer0-50"].requests[1].tolist() == [30, 59, 13, 34]


def test_missing_data_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SCHEDRL_DATA", raising=False)
    with pytest.raises(InstanceError, match=r"^suite cache-routes: SCHEDRL_DATA is unset, expected the folder that"):
        CACHE_SUITES["cache-routes"].load()
    monkeypatch.setenv("SCHEDRL_DATA", str(tmp_path))
    with pytest.raises(
        InstanceError, match=r"^suite cache-routes: no file .*olmoe-1b-7b_layer0_gsm8k_topk\.csv, expec"
    ):
        CACHE_SUITES["cache-routes"].load()


def test_routes_are_read_and_mistakes_named(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("row,e0,e1\n0,3,1\n1,2,2\n")
    assert read_routes(path, 4).tolist() == [[3, 1], [2, -1]]
    for text, message in (
        ("row,e0,e1\n", f"{path}:1: expected a head row,e0,... and at least one token"),
        ("row,e0,e1\n0,3\n", f"{path}:2: 2 columns, expected 3"),
        ("row,e0,e1\n0,3,1\n1,0,4\n", f"{path}:3: field e1: '4', expected 0 to 3"),
        ("row,e0,e1\n0,x,1\n", f"{path}:2: field e0: 'x', expected 0 to 3"),
    ):
        path.write_text(text)
        with pytest.raises(InstanceError) as error:
            read_routes(path, 4)
        assert str(error.value) == message
    with pytest.raises(InstanceError, match="cannot be read"):
        read_routes(tmp_path / "none.csv", 4)
