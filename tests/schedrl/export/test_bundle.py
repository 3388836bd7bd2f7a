"""From a run folder to a bundle: what goes in, that equal input gives equal bytes, and what is refused."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

import schedrl.export.bundle as writer
from schedrl.envs.jobshop.family import FAMILY
from schedrl.errors import BundleError, ConfigError
from schedrl.export import load, read_manifest
from schedrl.export.bundle import TOLERANCE, export_run, load_network, write_bundle
from schedrl.export.parity import measure_parity
from schedrl.policies.network import NetworkConfig, PolicyNetwork
from schedrl.training.config import parse_config

_CURVE = "decisions,seconds,gap,uniform jobs=6 machines=6\n0,0.5,0.75,0.75\n4096,2.5,0.25,0.25\n"


@pytest.fixture
def run_folder(network: PolicyNetwork, tmp_path: Path) -> Path:
    shops = [{"generator": "uniform", "size": {"jobs": 6, "machines": 6}}]
    config = parse_config(
        {
            "family": "jobshop",
            "instances": shops,
            "validation": {"instances": shops},
            "total_decisions": 8192,
            "seed": 7,
            "network": network.config.to_dict(),
            "simulator": {"delay_factor": 0.75},
        }
    )
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    (folder / "curve.csv").write_text(_CURVE, encoding="utf-8")
    (folder / "summary.json").write_text(json.dumps({"wall_s": 3.25, "finished": "2026-01-02"}), encoding="utf-8")
    best = {
        "network": network.state_dict(),
        "config": network.config.to_dict(),
        "family": "jobshop",
        "steps": 4096,
        "validation": {"uniform jobs=6 machines=6": 0.25},
    }
    torch.save(best, folder / "best.pt")
    return folder


def exported_without_tracing(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the writer take the ONNX members of an existing bundle, as tracing takes seconds."""
    with zipfile.ZipFile(bundle) as archive:
        members = {name: archive.read(name) for name in ("encoder.onnx", "decoder.onnx")}
    monkeypatch.setattr(writer, "to_onnx", lambda network, features: members)


def test_run_to_bundle_with_equal_bytes(run_folder: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "policy.schedrl"
    summary = export_run(run_folder, out)
    assert summary["family"] == "jobshop" and summary["decisions"] == 4096 and summary["validation_gap"] == 0.25
    assert summary["bytes"] == out.stat().st_size and 0.0 < summary["parity"] < TOLERANCE
    # The session's bundle holds the same network, exported separately.
    assert read_manifest(out)["sha256"] == read_manifest(bundle)["sha256"]
    assert [path.name for path in out.parent.iterdir()] == ["policy.schedrl"]
    assert load(out, family="jobshop").manifest.family == "jobshop"


def test_manifest_tells_how_the_policy_was_trained(
    run_folder: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported_without_tracing(bundle, monkeypatch)
    export_run(run_folder, tmp_path / "a.schedrl")
    export_run(run_folder, tmp_path / "b.schedrl")
    assert (tmp_path / "a.schedrl").read_bytes() == (tmp_path / "b.schedrl").read_bytes()
    manifest = read_manifest(tmp_path / "a.schedrl")
    provenance = manifest["provenance"]
    assert provenance["seed"] == 7 and provenance["decisions"] == 4096
    assert provenance["wall_s"] == 3.25 and provenance["date"] == "2026-01-02"
    assert provenance["config"]["ppo"]["learning_rate"] == 0.001
    assert provenance["config"]["instances"][0]["size"] == {"jobs": 6, "machines": 6}
    assert provenance["curve"] == {"decisions": [0.0, 4096.0], "seconds": [0.5, 2.5], "gap": [0.75, 0.25]}
    assert manifest["quality"] == {
        "validation_gap": 0.25,
        "validation": {"uniform jobs=6 machines=6": 0.25},
        "validation_reference": "bound",
    }
    # Options that the configuration leaves out are recorded with the defaults they had.
    assert manifest["simulator"] == {"generation": "active", "delay_factor": 0.75, "skip_forced": True}


def test_unfinished_run_exports(
    run_folder: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported_without_tracing(bundle, monkeypatch)
    (run_folder / "summary.json").unlink()
    export_run(run_folder, tmp_path / "a.schedrl")
    assert read_manifest(tmp_path / "a.schedrl")["provenance"]["wall_s"] == 2.5


def test_bundle_holds_no_traces_of_the_exporting_machine(bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        assert archive.namelist() == ["manifest.json", "encoder.onnx", "decoder.onnx"]
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert b".py" not in content and str(Path.home()).encode() not in content


def test_export_leaves_a_training_network_alone(bundle: Path, network: PolicyNetwork) -> None:
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_another_network_is_not_written(
    network: PolicyNetwork, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported_without_tracing(bundle, monkeypatch)
    changed = PolicyNetwork(FAMILY.features, network.config)
    changed.load_state_dict(network.state_dict())
    out = tmp_path / "x.schedrl"
    write_bundle(changed, FAMILY, out, provenance={}, quality={})
    out.unlink()
    with torch.no_grad():
        changed.candidate_hidden[1].bias[0] += 0.01
    with pytest.raises(BundleError, match=r"x\.schedrl: not written: logits differ from torch by .*, at most 1e-04$"):
        write_bundle(changed, FAMILY, out, provenance={}, quality={})
    assert not out.exists()


@pytest.mark.parametrize(
    "part", ["node_input.bias", "graph_output.bias", "convolutions.1.norm.weight", "compare.weight"]
)
def test_parity_notices_a_small_change_of_any_part(network: PolicyNetwork, bundle: Path, part: str) -> None:
    changed = PolicyNetwork(FAMILY.features, network.config)
    changed.load_state_dict(network.state_dict())
    policy = load(bundle)
    assert max(measure_parity(changed, policy, FAMILY.features).values()) < 1e-4
    with torch.no_grad():
        changed.get_parameter(part).add_(0.01)
    assert max(measure_parity(changed, policy, FAMILY.features).values()) > TOLERANCE


def test_parity_notices_values_that_are_not_finite(network: PolicyNetwork, bundle: Path) -> None:
    changed = PolicyNetwork(FAMILY.features, network.config)
    with torch.no_grad():
        changed.score[1].bias.fill_(torch.nan)
    assert measure_parity(changed, load(bundle), FAMILY.features)["logits"] == float("inf")


def test_unknown_simulator_option(network: PolicyNetwork, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="simulator option 'delay': jobshop has generation, delay_factor"):
        write_bundle(network, FAMILY, tmp_path / "x.schedrl", provenance={}, quality={}, simulator={"delay": 1})


def test_load_network_from_file_and_folder(run_folder: Path, network: PolicyNetwork) -> None:
    for path in (run_folder, run_folder / "best.pt"):
        loaded = load_network(path)
        assert not loaded.training and loaded.config == network.config
        for name, tensor in network.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name


def rewrite_best(folder: Path, **changes: Any) -> None:
    best = torch.load(folder / "best.pt", weights_only=True)
    torch.save(best | changes, folder / "best.pt")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("summary.json", "{", "not valid JSON"),
        ("summary.json", "[1]", "expected a JSON object"),
        ("curve.csv", "decisions,seconds,gap\n1,two,3\n", "expected numbers in the columns"),
        ("curve.csv", "decisions,seconds\n1,2\n", "expected numbers in the columns"),
    ],
)
def test_damaged_records_of_a_run_are_named(
    run_folder: Path, bundle: Path, tmp_path: Path, name: str, text: str, message: str
) -> None:
    (run_folder / name).write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        export_run(run_folder, tmp_path / "x.schedrl")
    assert name in str(error.value) and "\n" not in str(error.value)


def test_damaged_runs_are_one_line(run_folder: Path, tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            export_run(run_folder, tmp_path / "x.schedrl")
        assert message in str(caught.value) and "\n" not in str(caught.value), caught.value
        assert not (tmp_path / "x.schedrl").exists()

    wider = PolicyNetwork(FAMILY.features, NetworkConfig(node_width=8, layers=2, candidate_width=24))
    original = (run_folder / "best.pt").read_bytes()
    rewrite_best(run_folder, network=wider.state_dict())
    refused("best.pt: weights do not fit this version's jobshop network: ")
    rewrite_best(run_folder, config={"depth": 3})
    refused("best.pt: weights do not fit this version's jobshop network: ")
    torch.save({"network": {}}, run_folder / "best.pt")
    refused("best.pt: field config is missing")
    torch.save([1], run_folder / "best.pt")
    refused("best.pt: field network is missing")
    (run_folder / "best.pt").write_bytes(original[: len(original) // 2])
    refused("best.pt: not readable weights: ")
    (run_folder / "best.pt").unlink()
    refused("best.pt: no such file")
    (run_folder / "best.pt").write_bytes(original)
    (run_folder / "config.yaml").unlink()
    refused("config.yaml: cannot be read")
    shutil.rmtree(run_folder)
    refused("best.pt: no such file")
