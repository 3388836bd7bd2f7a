from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import schedrl.cli as cli
from schedrl.devices.memory import MemoryDevice, MemoryLayer
from schedrl.envs.memmap.explain import explain_plan
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.plan import MemoryPlan, slow_plan
from schedrl.envs.memmap.solution import AnyInstance, AnySolution, check
from schedrl.families import Family, get_family

Run = Callable[..., tuple[int, str, str]]
JOBSHOP = get_family("jobshop")
LAYERS = (
    MemoryLayer(name="hbm", read_bytes_per_s=1.0, write_bytes_per_s=1.0),
    MemoryLayer(name="cmem", read_bytes_per_s=10.0, write_bytes_per_s=10.0, capacity_bytes=10),
)
# Operation 0 computes for 20 s, operation 1 reads a weight of 8 bytes.
PROGRAM = MemoryMapInstance(
    name="program",
    memory=MemoryDevice(name="tiny", flops_per_s=1.0, layers=LAYERS),
    flops=np.array([20.0, 1.0]),
    size=np.array([8]),
    output=np.array([False]),
    access_op=np.array([1]),
    access_buffer=np.array([0]),
    access_write=np.array([False]),
    buffer_labels=("weight",),
)


def read(path: Path) -> Iterator[Any]:
    yield AnyInstance.from_json(path.read_text(encoding="utf-8"), source=str(path))


FAMILY = replace(
    JOBSHOP,
    name="explained",
    solution_type=AnySolution,
    read_instances=read,
    check=check,
    explain=explain_plan,
    suites={},
)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line with a family of memory programs beside the registered ones."""

    def find_family(name: str) -> Family:
        return FAMILY if name == "explained" else get_family(name)

    monkeypatch.setattr("schedrl.cli.names.find_family", find_family)

    def call(*arguments: object) -> tuple[int, str, str]:
        code = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    instance, solution = tmp_path / "program.json", tmp_path / "plan.json"
    instance.write_text(PROGRAM.to_json(), encoding="utf-8")
    solution.write_text(slow_plan(PROGRAM).to_json(), encoding="utf-8")
    return instance, solution


def test_a_plan_is_explained_in_short(run: Run, files: tuple[Path, Path]) -> None:
    code, out, err = run("explain", "explained", *files)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "latency 28 s, 100 % of 28 s without fast memory",
        "open: 1 accesses of 8 B, each alone would save 7 s in sum",
        "buffer weight (8 B) would save 7 s: open",
    ]


@pytest.mark.parametrize("option", ["--buffer", "--subject"])
def test_a_buffer_is_explained_by_name(run: Run, files: tuple[Path, Path], option: str) -> None:
    code, out, _ = run("explain", "explained", *files, option, "weight", "--json")
    assert code == 0
    report = json.loads(out)
    assert report == {
        "family": "explained",
        "instance": "program",
        "subject": "weight",
        "valid": True,
        "violations": [],
        "explanation": explain_plan(PROGRAM, slow_plan(PROGRAM), "weight"),
    }
    assert report["explanation"][1].startswith("op 1 reads from hbm: open: nothing prevents it")


def test_an_unknown_buffer_is_an_error_in_one_line(run: Run, files: tuple[Path, Path]) -> None:
    code, out, err = run("explain", "explained", *files, "--buffer", "wait")
    assert (code, out, err) == (2, "", "error: unknown buffer 'wait'; did you mean weight?\n")


def test_an_invalid_plan_is_not_explained(run: Run, files: tuple[Path, Path]) -> None:
    fast = MemoryPlan(access_layer=np.array([1]), residences=np.zeros((0, 5)), copies=np.zeros((0, 5)))
    files[1].write_text(fast.to_json(), encoding="utf-8")
    code, out, _ = run("explain", "explained", *files)
    assert code == 1
    assert out.splitlines() == [
        "INVALID",
        "  residency: operation 1 reads buffer weight in cmem, where it does not reside then",
    ]
    code, out, _ = run("explain", "explained", *files, "--json")
    report = json.loads(out)
    assert (code, report["valid"], report["explanation"]) == (1, False, []) and len(report["violations"]) == 1


def test_a_family_without_explanations_says_so(run: Run, files: tuple[Path, Path]) -> None:
    code, out, err = run("explain", "jobshop", "ft06", files[1])
    assert (code, out, err) == (2, "", "error: family jobshop has no explanations\n")
