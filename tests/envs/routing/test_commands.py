"""``schedrl routing fleet``: from a trace, or a configuration of Mélange's, to a fleet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from schedrl.envs.routing import commands
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.errors import ConfigError, InstanceError, UnknownNameError

APP = typer.Typer()
APP.command("fleet")(commands.fleet)
CONFIG = {
    "gpu_info": {
        "A10G": {"cost": 1.01, "tputs": [[2, 1], [5, 2]]},
        "A100-80GB": {"cost": 3.67, "tputs": [[20, 20], [40, 20]]},
    },
    "workload_distribution": [[0.2, 0.1], [0.5, 0.2]],
    "total_request_rate": 30.0,
    "slice_factor": 1,
}


def run(*arguments: object) -> str:
    result = CliRunner().invoke(APP, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    rows = [
        f"2024-01-01 00:00:{i // 10:02d}.{i % 10}000000,{200 + 40 * (i % 7)},{50 + 20 * (i % 5)}" for i in range(300)
    ]
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]) + "\n")
    return path


def test_the_authors_example(tmp_path: Path) -> None:
    config = tmp_path / "example.json"
    config.write_text(json.dumps(CONFIG))
    facts = json.loads(run("--config", config, "--json"))
    assert facts["counts"] == {"A10G": 3, "A100-80GB": 1}
    assert facts["usd_per_h"] == pytest.approx(6.7)
    assert (facts["best_single_type"], facts["single_type"]["A100-80GB"]["count"]) == ("A100-80GB", 2)
    assert facts["saving"] == pytest.approx(1 - 6.7 / 7.34)
    text = run("--config", config, "--slices", 4)
    assert "2 x A10G, 1 x A100-80GB" in text
    assert "USD/h           5.69 (optimal, at least 5.69)" in text
    assert "only A10G       12, 12.12 USD/h, saving 53.05 %" in text


def test_a_trace_becomes_a_fleet_and_an_instance(trace: Path, tmp_path: Path) -> None:
    out, instance = tmp_path / "fleet.json", tmp_path / "mixed.json"
    options: tuple[Any, ...] = ("--workload", trace, "--types", "a10g, a100-sxm-80gb", "--rate", 40)
    facts = json.loads(run(*options, "--slo-tpot", 0.05, "--out", out, "--instance", instance, "--json"))
    assert facts["requests_per_s"] == pytest.approx(40.0)
    assert facts["status"] == "optimal"
    assert facts["usd_per_h"] <= min(single["usd_per_h"] for single in facts["single_type"].values())
    written = json.loads(out.read_text())
    assert written["counts"] == facts["counts"]
    assert len(written["fleet"]) == sum(facts["counts"].values())
    made = RoutingInstance.from_json(instance.read_text())
    assert (made.requests, made.tpot_slo_s, made.name) == (300, 0.05, "mixed")
    assert made.arrival_s[-1] == pytest.approx(299 / 40)
    assert sum(server.price_usd_per_h for server in made.fleet) == pytest.approx(facts["usd_per_h"])


def test_prices_and_limits_change_the_choice(trace: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text('{"a10g": 0.01}')
    options: tuple[Any, ...] = ("-w", trace, "--types", "a10g,a100-sxm-80gb", "--rate", 40, "--json")
    made = tmp_path / "cheap.json"
    cheap = json.loads(run(*options, "--prices", prices, "--instance", made))
    assert cheap["counts"]["a100-sxm-80gb"] == 0
    assert {server.price_usd_per_h for server in RoutingInstance.from_json(made.read_text()).fleet} == {0.01}
    few = json.loads(run(*options, "--prices", prices, "--available", "a10g=1"))
    assert few["counts"]["a10g"] <= 1 <= few["counts"]["a100-sxm-80gb"]
    assert few["single_type"]["a10g"] is None
    more = json.loads(run(*options, "--overprovision", 1.0))
    assert more["usd_per_h"] > json.loads(run(*options))["usd_per_h"]


def test_groups_of_devices_cost_their_number(trace: Path) -> None:
    options: tuple[Any, ...] = ("-w", trace, "--model", "llama-3-70b", "--types", "h100-sxm", "--json")
    facts = json.loads(run(*options, "--tensor-parallel", 4))
    assert facts["usd_per_h"] == pytest.approx(facts["counts"]["h100-sxm"] * 4 * 7.52)
    with pytest.raises(ConfigError, match="llama-3-70b does not fit"):
        run(*options)


def test_lengths_alone_need_a_rate(tmp_path: Path) -> None:
    path = tmp_path / "lengths.csv"
    path.write_text("num_prefill_tokens,num_decode_tokens\n" + "100,50\n200,20\n" * 10)
    facts = json.loads(run("-w", path, "--types", "l4", "--rate", 3, "--json"))
    assert facts["requests_per_s"] == pytest.approx(3.0)
    with pytest.raises(ConfigError, match="expected a rate"):
        run("-w", path, "--types", "l4")


def test_mistakes_are_named(trace: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    with pytest.raises(ConfigError, match="expected one of --workload, --dataset and --config"):
        run("--types", "l4")
    with pytest.raises(UnknownNameError, match="unknown dataset 'azure'"):
        run("--dataset", "azure")
    with pytest.raises(UnknownNameError, match="unknown device 'a1000'"):
        run("-w", trace, "--types", "a1000")
    with pytest.raises(UnknownNameError, match="unknown language model 'llama'"):
        run("-w", trace, "--model", "llama")
    with pytest.raises(ConfigError, match="no GPU types to choose from"):
        run("-w", trace, "--types", ",")
    with pytest.raises(InstanceError, match="no GPU type serves requests of this size"):
        run("-w", trace, "--types", "l4", "--slo-tpot", 0.001)
    with pytest.raises(ConfigError, match="--available: 'l4', expected a type and a number"):
        run("-w", trace, "--types", "l4", "--available", "l4")
    for content, message in (("{", r"prices\.json:1: not valid JSON"), ('{"l4": -1}', r"prices\.json: field l4: -1")):
        prices.write_text(content)
        with pytest.raises(ConfigError, match=message):
            run("-w", trace, "--types", "l4", "--prices", prices)
    config = tmp_path / "example.json"
    config.write_text(json.dumps(CONFIG))
    with pytest.raises(ConfigError, match="--config has no devices of the catalogue"):
        run("--config", config, "--out", tmp_path / "fleet.json")


def test_data_sets_need_their_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCHEDRL_DATA", raising=False)
    with pytest.raises(InstanceError, match="azure-conversation: SCHEDRL_DATA is unset"):
        run("--dataset", "azure-conversation")
