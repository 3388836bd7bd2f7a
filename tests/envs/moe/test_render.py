from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schedrl.devices import uniform_cluster
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.model import MoEModel
from schedrl.envs.moe.render import (
    expert_chart,
    expert_heatmap,
    load_chart,
    load_heatmap,
    migration_over_time,
    migration_panels,
    traffic_chart,
    traffic_matrix,
)
from schedrl.envs.moe.solution import ExpertPlan, plan_objectives
from schedrl.envs.moe.timing import LayerTiming
from schedrl.errors import SolutionError

INSTANCE = ExpertPlacementInstance(
    name="four on two",
    model=MoEModel(name="m", layers=2, experts=4, top_k=2, hidden=64, intermediate=32),
    cluster=uniform_cluster("h100-sxm", nodes=2, per_node=1),
    slots=np.array([3, 3]),
    counts=np.array([[[1] * 4] * 2, [[8, 4, 4, 8], [12, 4, 4, 4]], [[8, 4, 4, 8], [12, 4, 4, 4]]]),
    planned=1,
    iterations=2,
)
PLAN = ExpertPlan(experts=np.array([[[0, 1, 3, 0, 2, 3], [0, 1, 1, 0, 2, 3]]] * 2, dtype=np.int32))


@pytest.mark.parametrize("draw", [load_heatmap, expert_heatmap, traffic_matrix, migration_over_time])
@pytest.mark.parametrize(("suffix", "start"), [(".svg", b"<svg"), (".png", b"\x89PNG"), (".html", b"<!doctype")])
def test_pictures_are_written_by_suffix(
    draw: Callable[[ExpertPlacementInstance, ExpertPlan, Path], None], suffix: str, start: bytes, tmp_path: Path
) -> None:
    if suffix == ".png":
        pytest.importorskip("matplotlib")
    draw(INSTANCE, PLAN, tmp_path / f"p{suffix}")
    assert (tmp_path / f"p{suffix}").read_bytes().startswith(start)


def test_loads_before_and_after() -> None:
    chart = load_chart(INSTANCE, PLAN)
    # In order, device 0 has half of expert 0, half of 1 and 2; layer 0: 4 + 2 + 4 of 24, device 1 the other 14.
    assert INSTANCE.start.tolist() == [[0, 1, 2, 3, 0, 1]] * 2
    before, after = (panel.values for panel in chart.panels)
    assert before == pytest.approx(np.array([[10, 14], [12, 12]]) / 12)
    assert after == pytest.approx(np.array([[12, 12], [10, 14]]) / 12)
    assert chart.centre == 1
    assert chart.breaks == (1,)
    assert [panel.title for panel in chart.panels] == [
        "experts in order: mean over layers of the largest 1.083",
        "as planned: mean over layers of the largest 1.083",
    ]


def test_the_least_balanced_layer_is_shown_by_expert() -> None:
    chart = expert_chart(INSTANCE, PLAN)
    assert chart.title == "four on two: experts on devices in layer 0"
    assert chart.rows == ("0", "3", "1", "2")
    # Expert 0 halved, expert 3 halved, 1 on device 0 and 2 on device 1; a device has 12 at the mean.
    nan = np.nan
    assert chart.panels[1].values * 12 == pytest.approx(np.array([[4, 4], [4, 4], [4, nan], [nan, 4]]), nan_ok=True)


def test_the_heaviest_of_many_experts_are_shown() -> None:
    instance = replace(
        INSTANCE,
        model=replace(INSTANCE.model, layers=1, experts=100),
        slots=np.array([50, 50]),
        counts=np.arange(100)[None, None],
    )
    chart = expert_chart(instance, ExpertPlan(experts=np.arange(100, dtype=np.int32)[None, None]))
    assert chart.title == "four on two: the 48 heaviest experts on devices in layer 0"
    assert (chart.rows[0], len(chart.rows)) == ("99", 48)


def test_traffic_of_tokens_at_home() -> None:
    # 12 tokens of two experts each per layer and two passes: layer 0 sends 12 choices per pass, 6 to each device at
    # best; every device sends half of them.
    after = traffic_chart(INSTANCE, PLAN).panels[1]
    assert after.values == pytest.approx(np.array([[np.nan, (6 + 7) / 2], [(6 + 5) / 2, np.nan]]), nan_ok=True)
    assert after.title.startswith("as planned: 50 % cross nodes, busiest gets 1.08 x mean")
    once = replace(INSTANCE, timing=LayerTiming(deduplicate="device"))
    fewer = traffic_chart(once, PLAN).panels[1].values
    assert (fewer[[0, 1], [1, 0]] < after.values[[0, 1], [1, 0]]).all()


def test_traffic_on_paths() -> None:
    path = replace(INSTANCE, timing=LayerTiming(residence="path"), transitions=np.eye(4)[None])
    # The first layer's 2, 1, 1 and 2 tokens per expert stay with it: half of expert 3 arrives at device 0 or 1.
    after = traffic_chart(path, PLAN).panels[1].values
    # Expert 0 is halved in both layers and splits evenly; expert 3 leaves device 0 for 1.
    assert after[0, 1] == pytest.approx(0.5 + 1.0)
    assert after[1, 0] == pytest.approx(0.5)


def test_migration_over_time_adds_up() -> None:
    moved = replace(INSTANCE, initial=np.array([[0, 1, 2, 3, 0, 1]] * 2, dtype=np.int32))
    panels = migration_panels(moved, PLAN).panels
    values = plan_objectives(moved, PLAN)
    assert panels[0].lines[0].y[:2].sum() * 1e9 == pytest.approx(values["moved_bytes"])
    assert panels[0].lines[0].y[1] == 0
    assert panels[1].lines[0].y[:2].mean() == pytest.approx(values["iteration_s"] * 1e6)
    assert [line.label for line in panels[1].lines] == ["as planned", "initial placement"]


@pytest.mark.parametrize("chart", [load_chart, expert_chart, traffic_chart, migration_panels])
def test_plans_of_other_instances_are_refused(chart: Callable[[Any, Any], Any]) -> None:
    with pytest.raises(SolutionError, match="four on two: the plan has 3 placements for 2 scored windows"):
        chart(INSTANCE, ExpertPlan(experts=np.zeros((3, 2, 6), dtype=int)))
    with pytest.raises(SolutionError, match="four on two: placement 0 layer 0: expert 1 has no slot"):
        chart(INSTANCE, ExpertPlan(experts=np.zeros((1, 2, 6), dtype=int)))
