from __future__ import annotations

import json
from pathlib import Path

import pytest

from schedrl.cli import main

PROFILE = "flops,bytes,seconds\n" + "".join(
    f"{2.0**k * 1e9!r},1e9,{((2.0**k * 1e9 / 5e13) ** 2 + (1e9 / 5e11) ** 2) ** 0.5 + 1e-5!r}\n" for k in range(14)
)
OPTIONS = ["--name", "npu", "--tflops", "100", "--bandwidth", "1000"]


def test_fit_prints_and_writes_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "p.csv", tmp_path / "npu.toml"
    path.write_text(PROFILE)
    options = [*OPTIONS, "--memory", "32", "--held-out", "model", "--out", str(out)]
    assert main(["devices", "fit", str(path), *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mfu"] == pytest.approx(0.5, rel=1e-2)
    assert found["mbu"] == pytest.approx(0.5, rel=1e-2)
    assert "memory_bytes" in out.read_text()
    assert main(["devices", "fit", str(path), *options]) == 0
    assert "held out: the profile names fewer than two models" in capsys.readouterr().out


def test_fit_refuses_bad_input_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.csv"
    path.write_text("flops,bytes,seconds\n1,2,three\n")
    assert main(["devices", "fit", str(path), *OPTIONS]) == 2
    assert capsys.readouterr().err == f"error: {path}:2: field seconds: 'three', expected a number above 0\n"
    assert main(["devices", "fit", str(path), *OPTIONS, "--held-out", "day"]) == 2
    assert "--held-out: 'day', expected model" in capsys.readouterr().err
    assert main(["devices", "fit", str(path), *OPTIONS, "--memory", "-1"]) == 2
    assert "--memory: -1.0" in capsys.readouterr().err


def test_list_names_the_kind_of_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["devices"]
    assert listed["a100-sxm-80gb"]["mfu"]["kind"] == "fitted"
    assert listed["l4"]["mfu"]["kind"] == "extrapolated"
    assert main(["devices", "list"]) == 0
    assert "rtx4090" in capsys.readouterr().out


def test_validate_says_where_the_data_is_expected(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SCHEDRL_DATA", raising=False)
    assert main(["devices", "validate"]) == 2
    assert "SCHEDRL_DATA is unset" in capsys.readouterr().err
