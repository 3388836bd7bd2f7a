from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from schedrl.devices.operator_fit import fit_device
from schedrl.devices.serving_validation import Validation, compared, validations
from schedrl.errors import InstanceError

DATA = os.environ.get("SCHEDRL_DATA")
needs_data = pytest.mark.skipif(
    not DATA or not (Path(DATA) / "routing/vidur/mlp/a100.csv").exists(),
    reason="needs the data that SCHEDRL_DATA names",
)


@pytest.fixture(scope="module")
def rows() -> dict[str, Validation]:
    assert DATA is not None
    return {row.name: row for row in validations(Path(DATA))}


def test_the_error_is_the_mean_of_the_points() -> None:
    row = compared("x", np.array([1.0, 2.0]), np.array([1.1, 1.8]), 0.1)
    assert (row.measured, row.predicted, row.error) == pytest.approx((1.5, 1.45, 0.1))
    assert not compared("x", np.array([1.0]), np.array([1.2]), 0.1).passed
    assert compared("x", np.array([1.0]), np.array([9.0])).passed


def test_without_data_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCHEDRL_DATA", raising=False)
    with pytest.raises(InstanceError, match="suite devices validate: SCHEDRL_DATA is unset"):
        validations()
    with pytest.raises(InstanceError, match=r"no file .*a100\.csv"):
        validations(tmp_path)


@needs_data
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("a100-sxm-80gb linear operators", 0.042),
        ("h100-sxm linear operators", 0.043),
        ("a40 linear operators", 0.040),
        ("a100-sxm-80gb linear operators, worst model held out: Meta-Llama-3-8B", 0.056),
        ("h100-sxm linear operators, worst model held out: phi-2", 0.070),
        ("a40 linear operators, worst model held out: Llama-2-7b-hf", 0.050),
        ("rtx4090 linear operators", 0.029),
        ("a30 attention, decoding", 0.072),
        ("rtx4090 attention, decoding", 0.125),
        ("a100-dgx all-reduce", 0.075),
        ("h100-dgx all-reduce", 0.069),
        ("h200-node all-reduce", 0.007),
    ],
)
def test_errors_are_those_measured(rows: dict[str, Validation], name: str, error: float) -> None:
    assert rows[name].error == pytest.approx(error, abs=0.0015)


@needs_data
def test_every_goal_is_met(rows: dict[str, Validation]) -> None:
    with_goal = [row for row in rows.values() if row.goal is not None]
    assert len(with_goal) == 6
    assert all(row.passed for row in with_goal)


@needs_data
def test_the_catalogues_constants_are_what_a_fit_finds() -> None:
    assert DATA is not None
    for stem, rate, bandwidth, constants in (
        ("a100", 312e12, 2.039e12, (0.731, 0.817)),
        ("h100", 989e12, 3.35e12, (0.727, 0.925)),
        ("a40", 149.7e12, 696e9, (0.75, 0.775)),
    ):
        path = Path(DATA) / f"routing/vidur/mlp/{stem}.csv"
        fitted = fit_device(path, flops_per_s=rate, memory_bandwidth_bytes_per_s=bandwidth)
        assert (fitted.mfu, fitted.mbu) == pytest.approx(constants, rel=0.015)
        assert fitted.mean_error < 0.043
