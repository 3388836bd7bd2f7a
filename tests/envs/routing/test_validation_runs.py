"""The simulator against a real run, and its two modes against one another."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from schedrl.devices.serving_validation import Validation
from schedrl.envs.routing.validation_runs import read_run, simulated, validations
from schedrl.errors import InstanceError

DATA = os.environ.get("SCHEDRL_DATA")
_RUN = "routing/llmservingsim/bench/RTX4090/Llama-3.1-8B"
needs_data = pytest.mark.skipif(
    not DATA or not (Path(DATA) / _RUN / "requests.jsonl").exists(),
    reason="needs the data that SCHEDRL_DATA names",
)


@pytest.fixture(scope="module")
def rows() -> dict[str, Validation]:
    assert DATA is not None
    return {row.name: row for row in validations(Path(DATA))}


@needs_data
def test_the_measured_run_is_the_published_one() -> None:
    assert DATA is not None
    run = read_run(Path(DATA))
    instance = run.instance
    # The run's own summary, in seconds.
    assert (run.first_token_s - instance.arrival_s).mean() == pytest.approx(65.4566, abs=1e-4)
    assert (run.finish_s - instance.arrival_s).mean() == pytest.approx(86.5783, abs=1e-4)
    tpot = (run.finish_s - run.first_token_s) / (instance.output_tokens - 1)
    assert tpot.mean() == pytest.approx(0.0324, abs=1e-4)
    assert instance.requests == 300
    assert (instance.fleet[0].kv_tokens, instance.fleet[0].max_sequences) == (2588 * 16, 256)


@needs_data
@pytest.mark.parametrize(
    ("label", "measured", "least"),
    [("TTFT", 65.457, -0.04), ("time per output token", 0.032447, -0.04), ("end to end", 86.578, -0.04)],
)
def test_means_of_the_run_are_within_their_goal(
    rows: dict[str, Validation], label: str, measured: float, least: float
) -> None:
    row = rows[f"rtx4090 vLLM run, mean {label}"]
    assert row.goal == 0.06
    assert row.passed
    assert row.measured == pytest.approx(measured, rel=1e-4)
    assert least < row.predicted / row.measured - 1.0 < 0.01


@needs_data
def test_aggregated_mode_is_close_to_exact_mode(rows: dict[str, Validation]) -> None:
    differences = [row.error for name, row in rows.items() if "aggregated against exact" in name]
    assert len(differences) == 6
    assert max(differences) < 0.01


@needs_data
def test_every_request_of_the_run_is_served_and_prefixes_are_found() -> None:
    assert DATA is not None
    instance = read_run(Path(DATA)).instance
    plan = simulated(instance, exact=True)
    assert (plan.instance == 0).all()
    # The run's own hits were 1.9 % of its prompts.
    assert plan.hit_tokens.sum() / instance.prompt_tokens.sum() == pytest.approx(0.019, abs=0.002)
    assert (np.diff(plan.first_token_s) >= 0.0).mean() > 0.9


@needs_data
def test_broken_files_are_named(tmp_path: Path) -> None:
    assert DATA is not None
    source, target = Path(DATA) / "routing/llmservingsim", tmp_path / "routing/llmservingsim"
    shutil.copytree(source / "bench", target / "bench")
    for name in source.glob("*.jsonl"):
        shutil.copy(name, target)
    requests, meta = (tmp_path / _RUN / name for name in ("requests.jsonl", "meta.json"))
    text = requests.read_text().splitlines()
    requests.write_text("\n".join(text[:10]))
    with pytest.raises(InstanceError, match=r"requests\.jsonl: 10 requests, expected the 300 of sharegpt"):
        read_run(tmp_path)
    requests.write_text("\n".join([*text[:4], text[4][:50]]))
    with pytest.raises(InstanceError, match=r"requests\.jsonl:5: not a request's times"):
        read_run(tmp_path)
    meta.write_text('{"kv_cache": {}}')
    with pytest.raises(InstanceError, match=r"meta\.json: not the description of a run: KeyError"):
        read_run(tmp_path)


def test_without_data_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCHEDRL_DATA", raising=False)
    with pytest.raises(InstanceError, match="suite devices validate: SCHEDRL_DATA is unset"):
        validations()
    with pytest.raises(InstanceError, match=r"no file .*meta\.json"):
        validations(tmp_path)
