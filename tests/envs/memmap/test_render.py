from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schedrl.devices.memory import MemoryDevice, MemoryLayer
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import fast_bound_s, program_latency_s, slow_latency_s
from schedrl.envs.memmap.packing import OffsetPackingInstance, Packing, max_live
from schedrl.envs.memmap.plan import MemoryPlan, slow_plan
from schedrl.envs.memmap.plan_check import check_plan
from schedrl.envs.memmap.render import (
    KINDS,
    buffer_kinds,
    latency_panels,
    latency_waterfall,
    memory_map,
    memory_map_chart,
    packing_chart,
    supply_curve,
    supply_panels,
)
from schedrl.errors import ConfigError, SolutionError
from schedrl.plotting.memory_map import HATCHES

MIB = 2**20
# One MiB of slow memory takes a millisecond, of cmem a tenth, of llc a quarter.
LAYERS = tuple(
    MemoryLayer(name=name, read_bytes_per_s=speed, write_bytes_per_s=speed, capacity_bytes=capacity)
    for name, speed, capacity in (("hbm", 1e3 * MIB, None), ("cmem", 1e4 * MIB, 16 * MIB), ("llc", 4e3 * MIB, 32 * MIB))
)


def program(layers: int = 2) -> MemoryMapInstance:
    """Weights w of 4 MiB, x of 2 defined by conv and read by relu, which runs twice and defines the output y, 3."""
    ops = [
        {"flops": 0, "seconds": 6e-3, "reads": [], "writes": [], "label": "wait"},
        {"flops": 0, "seconds": 1e-3, "reads": [0], "writes": [1], "label": "conv"},
        {"flops": 0, "seconds": 1e-3, "reads": [1], "writes": [2], "label": "relu", "trips": 2},
        {"flops": 0, "seconds": 2e-3, "reads": [], "writes": [], "label": "rest"},
        {"flops": 0, "seconds": 2e-3, "reads": [], "writes": [], "label": "more"},
    ]
    sizes = (("w", 4, False), ("x", 2, False), ("y", 3, True))
    buffers = [{"size": size * MIB, "label": label, "output": output} for label, size, output in sizes]
    memory = MemoryDevice(name="three", flops_per_s=1.0, layers=LAYERS[:layers])
    return MemoryMapInstance.from_program({"name": "net", "ops": ops, "buffers": buffers}, memory=memory)


PROGRAM = program()
# w comes in behind wait (4 of 6 ms), y goes back behind rest and more (3 of 4 ms).
PLAN = MemoryPlan(
    access_layer=np.array([1, 1, 1, 1]),
    residences=np.array([[0, 1, 0, 0, 1], [1, 1, 4 * MIB, 1, 2], [2, 1, 8 * MIB, 2, 4]]),
    copies=np.array([[0, 1, 1, -1, 1], [2, 0, 1, 2, 5]]),
)
PACKED = OffsetPackingInstance(
    name="packed",
    lower=np.array([0, 0, 5]),
    upper=np.array([10, 5, 10]),
    size=np.array([64, 16, 1]),
    gap_offset=np.array([0, 1, 1, 1]),
    gaps=np.array([[4, 6, 0, 32]]),
    labels=("big", "mid", "low"),
    capacity=100,
)
PACKING = Packing(offset=np.array([0, 64, 64]))


def test_the_examples_are_valid() -> None:
    assert check_plan(PROGRAM, PLAN) == []


def test_kinds_tell_parameters_intermediates_and_outputs() -> None:
    assert [KINDS[kind] for kind in buffer_kinds(PROGRAM)] == [
        "parameter or input",
        "intermediate",
        "output of the program",
    ]


def test_a_plan_is_drawn_with_residences_and_the_time_of_copies_over_them() -> None:
    chart = memory_map_chart(PROGRAM, PLAN)
    (panel,) = chart.panels
    assert panel.title == "cmem, 16 MiB: 3 residences up to 11 MiB, 2 copies" and panel.top == 16
    assert chart.offset_label == "offset, MiB" and chart.span == (0, 5)
    # Residences first to last, both included: w 0 to 1, x 1 to 2, y 2 to 4; then the windows of w in and y back.
    assert panel.start.tolist() == [0, 1, 2, 0, 3] and panel.length.tolist() == [2, 2, 3, 1, 2]
    assert panel.low.tolist() == [0, 4, 8, 0, 8] and panel.height.tolist() == [4, 2, 3, 4, 3]
    assert panel.group.tolist() == [0, 1, 2, 0, 2] and panel.label == ("w", "x", "y", "", "")
    assert [HATCHES[k] for k in panel.hatch] == ["", "", "", "rising", "falling"]
    assert panel.note[3] == "w · copied in behind operations 0 to 0"
    assert panel.note[1] == "x · 2 MiB at byte 4194304 · operations 1 to 2"
    # conv computes for 1 ms, more than its 0.6 ms of cmem; relu twice.
    assert chart.clock is not None and chart.clock == pytest.approx([0, 6, 7, 9, 11, 13])
    assert chart.clock_label == "time passed, ms"
    assert chart.title == "net: 13 ms, 50 % of 26 ms all slow"


def test_every_fast_layer_has_a_panel() -> None:
    chart = memory_map_chart(program(3), PLAN)
    assert [panel.title for panel in chart.panels] == [
        "cmem, 16 MiB: 3 residences up to 11 MiB, 2 copies",
        "llc, 32 MiB: 0 residences up to 0 B, 0 copies",
    ]
    assert [panel.top for panel in chart.panels] == [16, 32]


def test_supply_is_what_copies_use_and_what_is_left() -> None:
    chart = supply_panels(PROGRAM, PLAN)
    supply, waiting, under_way = chart.panels
    assert chart.title == "net: copies use 7 ms of the 13 ms (53.8 %)"
    copied_in, copied_back, spare = supply.lines
    assert (copied_in.label, copied_back.label, spare.label) == ("copies in", "copies back", "spare")
    assert copied_in.y == pytest.approx([4, 0, 0, 0, 0, 0]) and copied_back.y == pytest.approx([0, 0, 0, 2, 1, 1])
    assert spare.y == pytest.approx([2, 1, 2, 0, 1, 1]) and supply.y_label == "per operation, ms"
    # 4 ms are asked for at the start, 3 ms after relu.
    assert waiting.lines[0].y == pytest.approx([4, 0, 0, 0, 0, 0])
    assert waiting.lines[1].y == pytest.approx([0, 0, 0, 3, 1, 0])
    assert under_way.lines[0].y.tolist() == [1, 0, 0, 0, 0, 0]
    assert under_way.lines[1].y.tolist() == [0, 0, 0, 1, 1, 1]


def test_latency_adds_up_to_the_objectives() -> None:
    layers = np.array([0, 1, 1, 0])
    plan = MemoryPlan(access_layer=layers, residences=np.array([[1, 1, 0, 1, 2]]), copies=np.zeros((0, 5)))
    first, sums, saved = latency_panels(PROGRAM, plan).panels
    computing, memory, saving = (line.y for line in first.lines)
    assert computing == pytest.approx([6, 1, 2, 2, 2, 2])
    # conv: 4 MiB slow and 2 fast are 4.2 ms, 6 all slow; relu twice: 2 fast and 3 slow are 3.2 ms, 5 all slow.
    assert memory == pytest.approx([0, 3.2, 4.4, 0, 0, 0]) and saving == pytest.approx([0, 1.8, 3.6, 0, 0, 0])
    slow, mapped = slow_latency_s(PROGRAM), program_latency_s(PROGRAM, plan.access_layer)
    assert [line.y[-1] for line in sums.lines] == pytest.approx([1e3 * slow, 1e3 * mapped, 13])
    assert [line.label for line in sums.lines] == ["all slow: 26 ms", "as planned: 20.6 ms", "computing: 13 ms"]
    assert saved.lines[0].y == pytest.approx([0, 0, 1.8, 5.4, 5.4, 5.4])
    assert fast_bound_s(PROGRAM) == pytest.approx(13e-3) and saved.title == "Saved so far; 13 ms with everything fast"


def test_a_packing_is_drawn_by_live_bytes_and_size() -> None:
    chart = packing_chart(PACKED, PACKING)
    (panel,) = chart.panels
    # The gap of the largest leaves its lower half alive.
    assert panel.start.tolist() == [0, 4, 6, 0, 5] and panel.length.tolist() == [4, 2, 4, 5, 5]
    assert panel.low.tolist() == [0, 0, 0, 64, 64] and panel.height.tolist() == [64, 32, 64, 16, 1]
    assert [chart.groups[k] for k in panel.group] == [
        *["over 1/4 of the peak"] * 3,
        "over 1/16",
        "smaller",
    ]
    assert max_live(PACKED) == 80
    assert [(level.value, level.label) for level in panel.levels] == [
        (80, "peak = most bytes live at once 80 B"),
        (100, "capacity 100 B"),
    ]
    assert chart.title == "packed: peak 80 B, 0 % above the most live bytes" and chart.offset_label == "offset, B"


CASES: list[tuple[Any, Any, Any]] = [
    (memory_map, PROGRAM, PLAN),
    (memory_map, PACKED, PACKING),
    (supply_curve, PROGRAM, PLAN),
    (latency_waterfall, PROGRAM, PLAN),
    (memory_map, PROGRAM, slow_plan(PROGRAM)),
    (supply_curve, PROGRAM, slow_plan(PROGRAM)),
    (latency_waterfall, program(3), slow_plan(program(3))),
]


@pytest.mark.parametrize(("draw", "instance", "solution"), CASES)
@pytest.mark.parametrize("suffix", [".svg", ".html"])
def test_pictures_need_nothing_else(tmp_path: Path, draw: Any, instance: Any, solution: Any, suffix: str) -> None:
    path = tmp_path / f"p{suffix}"
    draw(instance, solution, path)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<svg" if suffix == ".svg" else "<!doctype html>")
    if suffix == ".svg":
        ElementTree.fromstring(text)
    else:
        assert not re.search(r"https?://", text)
    with pytest.raises(ConfigError, match=r"suffix '.gif' is not a picture format"):
        draw(instance, solution, tmp_path / "p.gif")


@pytest.mark.parametrize(("draw", "instance", "solution"), CASES[:4])
def test_pictures_are_drawn_by_matplotlib_too(tmp_path: Path, draw: Any, instance: Any, solution: Any) -> None:
    pytest.importorskip("matplotlib")
    draw(instance, solution, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_foreign_solutions_are_refused(tmp_path: Path) -> None:
    other = MemoryPlan(access_layer=np.zeros(3, dtype=np.int8), residences=np.zeros((0, 5)), copies=np.zeros((0, 5)))
    beyond = MemoryPlan(access_layer=PLAN.access_layer, residences=np.array([[3, 1, 0, 0, 0]]), copies=np.zeros((0, 5)))
    late = MemoryPlan(access_layer=PLAN.access_layer, residences=np.zeros((0, 5)), copies=np.array([[0, 1, 1, 0, 9]]))
    for draw in (memory_map, supply_curve, latency_waterfall):
        with pytest.raises(SolutionError, match="net: the plan has 3 accesses, not 4"):
            draw(PROGRAM, other, tmp_path / "p.svg")
        with pytest.raises(SolutionError, match="net: residences: buffer outside 0 to 2"):
            draw(PROGRAM, beyond, tmp_path / "p.svg")
        with pytest.raises(SolutionError, match="net: copies: operation outside 0 to 5"):
            draw(PROGRAM, late, tmp_path / "p.svg")
    with pytest.raises(SolutionError, match="packed: 2 offsets, expected 3"):
        memory_map(PACKED, Packing(offset=np.array([0, 1])), tmp_path / "p.svg")
    with pytest.raises(SolutionError, match="packed: packs offsets, expected a packing"):
        memory_map(PACKED, PLAN, tmp_path / "p.svg")
    with pytest.raises(SolutionError, match="net: maps a program, expected a memory plan"):
        memory_map(PROGRAM, PACKING, tmp_path / "p.svg")
