"""Files of all four engines: written, read back, compared with what each engine documents, and refused when broken."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.arrays import I32
from schedrl.devices import uniform_cluster
from schedrl.envs.moe.engine_export import engine_layers, export_plan, validate_export, validate_placement
from schedrl.envs.moe.engines import ENGINES, get_engine
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.model import MoEModel, get_model
from schedrl.envs.moe.solution import ExpertPlan
from schedrl.errors import ConfigError, SolutionError, UnknownNameError

MODEL = MoEModel(name="small", layers=2, experts=4, top_k=2, hidden=64, intermediate=64, first_layer=1)
PLACEMENT = np.array([[0, 1, 2, 3, 0, 1], [3, 2, 1, 0, 3, 2]], dtype=np.int32)
OTHER = PLACEMENT[::-1]


def instance_of(slots: Any = (3, 3), counts: Any = None, model: MoEModel = MODEL) -> ExpertPlacementInstance:
    counts = np.ones((3, model.layers, model.experts), dtype=np.int64) if counts is None else counts
    cluster = uniform_cluster("h100-sxm", nodes=1, per_node=len(slots))
    return ExpertPlacementInstance(name="i", model=model, cluster=cluster, slots=slots, counts=counts, planned=1)


def plan_of(*placements: I32) -> ExpertPlan:
    return ExpertPlan(experts=np.stack(placements))


def test_the_files_are_those_that_the_engines_document() -> None:
    texts = {name: engine.write(PLACEMENT, MODEL, 2) for name, engine in ENGINES.items()}
    rows = PLACEMENT.tolist()
    assert json.loads(texts["sglang"]) == {"physical_to_logical_map": rows}
    assert json.loads(texts["vllm"]) == rows
    assert json.loads(texts["vllm-ascend"]) == {
        "moe_layer_count": 2,
        "layer_list": [
            {
                "layer_id": layer,
                "device_count": 2,
                "device_list": [
                    {"device_id": 0, "device_expert": rows[layer][:3]},
                    {"device_id": 1, "device_expert": rows[layer][3:]},
                ],
            }
            for layer in (0, 1)
        ],
    }
    assert texts["tensorrt-llm"] == (
        "num_slots: 6\n"
        "initial_global_assignments:\n"
        "  1: [0, 1, 2, 3, 0, 1]\n"
        "  2: [3, 2, 1, 0, 3, 2]\n"
        "layer_updates_per_iter: 0\n"
    )


@st.composite
def placements(draw: st.DrawFn) -> tuple[I32, MoEModel, int]:
    devices, each = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    slots, layers = devices * each, draw(st.integers(1, 4))
    experts = draw(st.integers(1, slots))
    model = MoEModel(
        name="m", layers=layers, experts=experts, top_k=1, hidden=8, intermediate=8, first_layer=draw(st.integers(0, 3))
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = [rng.permutation([*range(experts), *rng.integers(0, experts, slots - experts)]) for _ in range(layers)]
    return np.array(rows, dtype=np.int32), model, devices


@given(placements(), st.sampled_from(sorted(ENGINES)))
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_back_and_valid(case: tuple[I32, MoEModel, int], name: str) -> None:
    placement, model, devices = case
    text = ENGINES[name].write(placement, model, devices)
    assert (ENGINES[name].read(text, model, devices, "s") == placement).all()
    report = validate_export(text, engine=name, model=model, devices=devices, num_layers=model.layers)
    assert report.violations == ()
    twice = sum(len(set(own.tolist())) < len(own) for own in placement.reshape(-1, placement.shape[1] // devices))
    assert bool(report.warnings) == bool(twice)


@pytest.mark.parametrize("name", ENGINES)
def test_plans_of_deepseek_v3_are_exported_with_the_layers_that_each_engine_counts(name: str, tmp_path: Path) -> None:
    model = get_model("deepseek-v3")
    cluster = uniform_cluster("h100-sxm", nodes=4, per_node=8)
    counts = np.ones((1, 58, 256), dtype=np.int64)
    instance = ExpertPlacementInstance(
        name="v3", model=model, cluster=cluster, slots=[9] * 32, counts=counts, planned=1
    )
    row = np.arange(288, dtype=np.int32) % 256
    report = export_plan(instance, plan_of(np.tile(row, (58, 1))), name, tmp_path / "file")
    assert report.violations == report.warnings == ()
    text = (tmp_path / "file").read_text()
    placement = ENGINES[name].read(text, model, 32, "s")
    assert placement.shape == (61 if name == "sglang" else 58, 288)
    assert len(placement) == engine_layers(ENGINES[name], model)
    if name == "tensorrt-llm":
        layers = re.findall(r"^  (\d+): ", text, flags=re.MULTILINE)
        assert layers == [str(layer) for layer in range(3, 61)]
    if name == "sglang":
        fewer = export_plan(instance, plan_of(np.tile(row, (58, 1))), name, tmp_path / "file", num_layers=58)
        assert fewer.violations == ()
        assert len(json.loads((tmp_path / "file").read_text())["physical_to_logical_map"]) == 58


def in_both_layers(*findings: str) -> list[str]:
    return [f"layer {layer}: expert {finding}" for layer in (0, 1) for finding in findings]


@pytest.mark.parametrize(
    ("placement", "devices", "violations"),
    [
        (PLACEMENT, 2, []),
        (PLACEMENT[:1], 2, ["1 layers, the engine expects 2"]),
        (PLACEMENT, 4, ["6 slots per layer (4 experts, 2 redundant) do not divide among 4 devices"]),
        (np.where(PLACEMENT == 0, 4, PLACEMENT), 2, in_both_layers("4 outside 0 to 3", "0 has no slot")),
        (PLACEMENT - 1, 2, in_both_layers("-1 outside 0 to 3", "3 has no slot")),
        (
            np.array([[0, 1], [2, 3]]),
            2,
            [
                "2 slots per layer are fewer than 4 experts",
                *(f"layer 0: expert {e} has no slot" for e in (2, 3)),
                *(f"layer 1: expert {e} has no slot" for e in (0, 1)),
            ],
        ),
    ],
)
def test_violations(placement: Any, devices: int, violations: list[str]) -> None:
    report = validate_placement(placement, layers=2, experts=4, devices=devices)
    assert list(report.violations) == violations
    assert report.warnings == ()


def test_replicas_on_one_device_are_warnings() -> None:
    placement = np.array([[0, 0, 1, 2, 3, 1], [0, 1, 2, 3, 3, 3]])
    report = validate_placement(placement, layers=2, experts=4, devices=2)
    assert report.violations == ()
    assert report.warnings == (
        "layer 0: expert 0 several times on device 0",
        "layer 1: expert 3 several times on device 1",
    )


ASCEND = ENGINES["vllm-ascend"].write(PLACEMENT, MODEL, 2)
TENSORRT = ENGINES["tensorrt-llm"].write(PLACEMENT, MODEL, 2)


@pytest.mark.parametrize(
    ("engine", "text", "problem"),
    [
        ("sglang", "{", "f: not valid JSON"),
        ("sglang", "[]", "f: got [], expected a table"),
        ("sglang", "{}", "f: field physical_to_logical_map: missing"),
        ("sglang", '{"physical_to_logical_map": [[0]], "note": 1}', "f: field note: unknown to the engine"),
        (
            "sglang",
            '{"physical_to_logical_map": [[0, 1], [0]]}',
            "f: field physical_to_logical_map[1]: expected a list",
        ),
        (
            "sglang",
            '{"physical_to_logical_map": [[0, 1.5]]}',
            "f: field physical_to_logical_map[0]: an entry is no exp",
        ),
        ("vllm", "[]", "f: field (top level): expected a list of lists"),
        ("vllm", "[[true]]", "f: field (top level)[0]: an entry is no expert"),
        ("vllm-ascend", ASCEND.replace('count": 2, "layer_l', 'count": 3, "layer_l'), "f: field moe_layer_count: 3"),
        ("vllm-ascend", ASCEND.replace('"layer_id": 1', '"layer_id": 2'), "f: field layer_list[1]: expected a table"),
        ("vllm-ascend", ASCEND.replace('"device_count": 2', '"device_count": 1', 1), "f: field layer_list[0].device_c"),
        ("vllm-ascend", ASCEND.replace("[0, 1, 2]", "[0, 1]"), "f: field layer_list[0].device_list.device_expert[1]"),
        ("tensorrt-llm", "a: [", "f: not valid YAML"),
        ("tensorrt-llm", "!!python/object/apply:os.getcwd []", "f: not valid YAML"),
        ("tensorrt-llm", TENSORRT.replace("num_slots: 6", "num_slots: 7"), "f: field num_slots: 7, rows have 6"),
        (
            "tensorrt-llm",
            TENSORRT.replace("  2:", "  3:"),
            "f: field initial_global_assignments: keys [1, 3], expected",
        ),
        ("tensorrt-llm", TENSORRT.replace("iter: 0", "iter: 2"), "f: field layer_updates_per_iter: expected 0"),
        ("tensorrt-llm", TENSORRT + "x: 1\n", "f: field x: unknown to the engine"),
    ],
)
def test_broken_files_are_violations(engine: str, text: str, problem: str) -> None:
    report = validate_export(text, engine=engine, model=MODEL, devices=2, source="f")
    assert len(report.violations) == 1
    assert report.violations[0].startswith(problem)


def test_one_list_of_vllm_holds_for_every_layer() -> None:
    assert get_engine("vllm").read("[0, 1, 2, 3]", MODEL, 2, "f").tolist() == [[0, 1, 2, 3]] * 2
    assert validate_export("[0, 1, 2, 3]", engine="vllm", model=MODEL, devices=2).violations == ()


@pytest.mark.parametrize(
    ("instance", "plan", "options", "error", "problem"),
    [
        (
            instance_of(),
            plan_of(PLACEMENT),
            {"engine": "x"},
            UnknownNameError,
            "unknown engine 'x'; choose from sglang",
        ),
        (instance_of((4, 2)), plan_of(PLACEMENT), {}, ConfigError, "2 to 4 per device, vLLM needs equally many"),
        (instance_of(), plan_of(PLACEMENT, OTHER), {}, ConfigError, "the plan has 2 placements, choose a window"),
        (instance_of(), plan_of(PLACEMENT), {"window": 2}, ConfigError, "window 2, expected 0 to 1"),
        (instance_of(), plan_of(PLACEMENT[:, :5]), {}, SolutionError, "the plan is for 2 layers of 5 slots"),
        (instance_of(), plan_of(0 * PLACEMENT), {}, SolutionError, "placement 0 layer 0: expert 1 has no slot"),
        (instance_of(), plan_of(PLACEMENT), {"num_layers": 3}, ConfigError, "vLLM cannot take 3"),
        (instance_of(), plan_of(PLACEMENT), {"engine": "sglang", "num_layers": 1}, ConfigError, "SGLang cannot take 1"),
        (
            instance_of(counts=np.ones((2, 1, 4))),
            plan_of(PLACEMENT[:1]),
            {},
            ConfigError,
            "1 layers of 2 of model small, vLLM needs all",
        ),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_line(
    instance: ExpertPlacementInstance,
    plan: ExpertPlan,
    options: dict[str, Any],
    error: type[Exception],
    problem: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(error, match=problem) as caught:
        export_plan(instance, plan, **({"engine": "vllm", "path": tmp_path / "f"} | options))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_placement_of_a_window_is_exported(tmp_path: Path) -> None:
    path = tmp_path / "new" / "f.json"
    for window, expected in enumerate((PLACEMENT, OTHER)):
        export_plan(instance_of(), plan_of(PLACEMENT, OTHER), "vllm", path, window=window)
        assert json.loads(path.read_text()) == expected.tolist()
    export_plan(instance_of(), plan_of(PLACEMENT), "vllm", path, window=1)  # one placement holds for all windows
    assert json.loads(path.read_text()) == PLACEMENT.tolist()
    export_plan(instance_of(), plan_of(OTHER, OTHER), "vllm", path)  # nothing to choose
    assert json.loads(path.read_text()) == OTHER.tolist()
