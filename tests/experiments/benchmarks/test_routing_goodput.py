from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from schedrl.envs.routing.generators import MOONCAKE
from schedrl.envs.routing.workload import Workload, window
from schedrl.errors import UnknownNameError
from schedrl.experiments.benchmarks import routing_goodput
from schedrl.experiments.benchmarks.routing_goodput import POOLED, instance_of, main, players, rows_of, windows_of

DATA = Path(os.environ.get("SCHEDRL_DATA", "")) / MOONCAKE
needs_data = pytest.mark.skipif(not os.environ.get("SCHEDRL_DATA") or not DATA.is_file(), reason="no SCHEDRL_DATA")


def bursts(count: int = 240) -> Workload:
    rng = np.random.default_rng(0)
    return Workload(
        arrival_s=np.cumsum(rng.exponential(0.1, count)),
        prompt_tokens=rng.integers(2000, 16000, count).astype(np.int32),
        output_tokens=rng.integers(1, 100, count).astype(np.int32),
    )


def test_rows_name_goodput_and_interval() -> None:
    rows = rows_of(bursts(), "heterogeneous", players(["min-ttft", "random"], rules_only=True), windows=2, warm_up=10,
                   tolerance=0.2)  # fmt: skip
    by_name = {str(row["router"]): row for row in rows}
    best, worst = by_name["min-ttft"], by_name["random"]
    assert isinstance(best["goodput"], float) and isinstance(worst["goodput"], float)
    assert best["goodput"] > 2 * worst["goodput"] > 0.0
    assert best["reference"] == 14.85 and worst["reference"] == 1.77
    assert best["difference"] == pytest.approx(best["goodput"] / 14.85 - 1.0)
    assert worst["windows_low"] <= worst["windows_mean"] <= worst["windows_high"]  # type: ignore[operator]


def test_windows_have_the_same_size() -> None:
    assert [part.requests for part in windows_of(bursts(), 4)] == [60] * 4


def test_the_fleet_of_the_reference_never_runs_out_of_memory() -> None:
    fleet = instance_of(bursts(10), "heterogeneous").fleet
    assert [one.device for one in fleet] == [
        "h100-sxm", "h100-sxm", "a100-sxm-80gb", "a100-sxm-80gb", "l40s", "l40s", "a10g", "l4"
    ]  # fmt: skip
    assert all(one.kv_tokens == 2**30 and one.cache_tokens == 1_000_000 for one in fleet)


def test_unknown_routers_are_named() -> None:
    with pytest.raises(UnknownNameError, match="router nearest: unknown, expected some of affinity"):
        players(["nearest"], rules_only=True)


def test_the_table_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing_goodput, "_trace", lambda: bursts(600))
    monkeypatch.setattr(routing_goodput, "REFERENCE", {"homogeneous": {}})
    main(["--rules", "--routers", "round-robin", "--windows", "0", "--out", str(tmp_path / "table.csv")])
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert lines[0].startswith("fleet,router,reference,goodput,difference,windows_mean")
    assert lines[1].startswith("homogeneous,round-robin,,")


@needs_data
def test_affinity_and_the_pool_reach_the_figures_of_the_reference() -> None:
    rows = rows_of(
        routing_goodput._trace(), "homogeneous", players(["affinity", POOLED], rules_only=True), windows=0,
        tolerance=0.2,
    )  # fmt: skip
    assert all(abs(float(str(row["difference"]))) < 0.05 for row in rows)
    assert window(routing_goodput._trace(), first=0, count=10).requests == 10
