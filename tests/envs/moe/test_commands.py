"""``schedrl moe loads`` and ``schedrl moe export`` from recorded counts to an engine's file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from schedrl.envs.moe import commands
from schedrl.envs.moe.formats import read_instance
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.solution import ExpertPlan
from schedrl.errors import ConfigError, InstanceError, SolutionError, UnknownNameError

APP = typer.Typer()
APP.command("export")(commands.export)
APP.command("loads")(commands.loads)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(APP, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    counts, out = tmp_path / "loads.npy", tmp_path / "instance.json"
    np.save(counts, np.random.default_rng(0).integers(1, 100, (4, 26, 64)))
    run("loads", counts, "--model", "deepseek-v2-lite", "--redundant", 8, "--planned", 2, "--out", out)
    return out


def test_counts_become_an_instance(instance: Path) -> None:
    made = read_instance(instance)
    assert isinstance(made, ExpertPlacementInstance)
    assert (made.name, made.devices, made.planned, made.slots.tolist()) == ("loads", 8, 2, [9] * 8)
    assert made.counts.shape == (4, 26, 64)


def test_routes_need_their_window(tmp_path: Path) -> None:
    routes, out = tmp_path / "routes.csv", tmp_path / "instance.json"
    routes.write_text("row,e0,e1\n" + "".join(f"{t},{t % 64},{(t + 1) % 64}\n" for t in range(128)))
    arguments = ("loads", routes, "-m", "olmoe-1b-7b", "-o", out, "--json")
    with pytest.raises(ConfigError, match="tokens per window"):
        run(*arguments)
    facts = json.loads(run(*arguments, "--tokens-per-window", 64))
    assert (facts["windows"], facts["layers"], facts["experts"], facts["tokens"]) == (2, 1, 64, 256)
    assert facts["file"] == str(out)


def test_a_plan_becomes_the_file_of_an_engine(instance: Path, tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.json", tmp_path / "location.json"
    row = np.arange(72, dtype=np.int32) % 64
    plan.write_text(ExpertPlan(experts=np.tile(row, (1, 26, 1))).to_json())
    text = run("export", instance, plan, "--engine", "sglang", "--out", out)
    assert "--init-expert-location" in text
    assert "redundant_experts  8" in text
    assert json.loads(out.read_text()) == {"physical_to_logical_map": [row.tolist()] * 27}  # one dense layer before
    facts = json.loads(run("export", instance, plan, "-e", "tensorrt-llm", "-o", out, "--json"))
    assert (facts["slots_per_device"], facts["warnings"]) == (9, [])
    assert out.read_text().startswith("num_slots: 72\ninitial_global_assignments:\n  1: [0, 1, ")


def test_mistakes_are_named(instance: Path, tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.json", tmp_path / "out.json"
    plan.write_bytes(b"\xff")
    with pytest.raises(UnknownNameError, match="unknown engine 'x'"):
        run("export", instance, plan, "-e", "x", "-o", out)
    with pytest.raises(SolutionError, match=r"plan\.json: not UTF-8 text"):
        run("export", instance, plan, "-e", "vllm", "-o", out)
    plan.write_text("{}")
    with pytest.raises(SolutionError, match="field schema: expected schedrl/expert-plan/1"):
        run("export", instance, plan, "-e", "vllm", "-o", out)
    with pytest.raises(InstanceError, match="do not divide among 8 devices"):
        run("loads", tmp_path / "loads.npy", "-m", "deepseek-v2-lite", "-r", 7, "-o", out)
    assert not out.exists()
