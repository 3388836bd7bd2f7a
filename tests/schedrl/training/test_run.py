import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from schedrl.errors import ConfigError
from schedrl.training.config import parse_config
from schedrl.training.run import build_model, train


def _curve(run: Path) -> list[dict[str, str]]:
    with (run / "curve.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def _weights(run: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(run / "checkpoint.pt", weights_only=True)["weights"]
    return weights


def test_killed_run_resumes_to_the_same_curve_and_weights(tmp_path: Path, tiny: dict[str, Any]) -> None:
    config = parse_config(tiny)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(config, whole, progress=False)
    code = (
        "import sys, yaml, pathlib; from schedrl.training.config import parse_config; "
        "from schedrl.training.run import train; "
        "train(parse_config(yaml.safe_load(sys.argv[1])), pathlib.Path(sys.argv[2]), progress=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, yaml.safe_dump(tiny), str(broken)])
    until = time.monotonic() + 120
    while not (broken / "curve.csv").exists() or len(_curve(broken)) < 3:
        assert time.monotonic() < until and process.poll() is None, "ended before it could be killed"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(_curve(broken)) < len(_curve(whole)), "killed too late to test anything"
    summary = train(config, broken, resume=True, progress=False)
    assert summary["decisions"] == 6_144
    assert _curve(broken) == _curve(whole)
    ours, theirs = _weights(broken), _weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_learns_and_keeps_the_best(tmp_path: Path, tiny: dict[str, Any]) -> None:
    tiny |= {"total_decisions": 24_576, "instances": tiny["instances"][:1]}
    tiny["ppo"] |= {"epochs": 3, "learning_rate": 3e-3}
    tiny["validation"]["every_decisions"] = 4_096
    tiny["validation"]["count"] = 16
    summary = train(parse_config(tiny), tmp_path / "run", progress=False)
    gaps = [float(row["gap"]) for row in _curve(tmp_path / "run")]
    assert summary["best_gap"] == pytest.approx(min(gaps))
    # An untrained policy ends about 0.9 above the bound on these instances, dispatching rules near 0.4.
    assert min(gaps) < gaps[0] - 0.1
    assert (tmp_path / "run" / "best.pt").is_file()
    assert "<svg" in (tmp_path / "run" / "curve.svg").read_text()
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


def test_same_seed_same_weights_other_seed_others(tiny: dict[str, Any]) -> None:
    def first_weight(seed: int) -> torch.Tensor:
        model, _ = build_model(parse_config(tiny | {"seed": seed}))
        model.learn(1_024)
        return next(model.policy.parameters()).detach().clone()

    assert torch.equal(first_weight(1), first_weight(1))
    assert not torch.equal(first_weight(1), first_weight(2))


def test_folder_guards(tmp_path: Path, tiny: dict[str, Any]) -> None:
    config = parse_config(tiny | {"total_decisions": 512})
    with pytest.raises(ConfigError, match=r"no checkpoint\.pt"):
        train(config, tmp_path / "run", resume=True, progress=False)
    train(config, tmp_path / "run", progress=False)
    with pytest.raises(ConfigError, match="already holds a run"):
        train(config, tmp_path / "run", progress=False)
    with pytest.raises(ConfigError, match="differs from the configuration"):
        train(parse_config(tiny), tmp_path / "run", resume=True, progress=False)
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ConfigError, match="not a readable checkpoint") as error:
        train(config, tmp_path / "run", resume=True, progress=False)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_missing_cuda_is_said(tmp_path: Path, tiny: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="cuda is not available"):
        train(parse_config(tiny | {"device": "cuda"}), tmp_path / "run", progress=False)
