from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schedrl.errors import UnknownNameError
from schedrl.evaluation import bench as module
from schedrl.families import family_names, get_family


def test_every_family_says_what_it_is_measured_on() -> None:
    for name in family_names():
        family = get_family(name)
        first, second = family.benchmark.draw(family, 2)
        assert first != second


def test_figures_are_one_flat_json_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_training_rate", lambda family: 1.0)
    figures = module.bench("jobshop", seconds=0.1)
    assert list(figures) == [
        "family",
        "env_decisions_per_s",
        "env_vector_decisions_per_s",
        "train_decisions_per_s",
        "policy_p50_ms",
        "policy_p99_ms",
        "peers",
    ]
    assert json.loads(json.dumps(figures)) == figures
    assert isinstance(figures["peers"], dict)
    # Plain Python would reach some ten thousand; compiled kernels miss neither mark on any machine.
    assert figures["env_decisions_per_s"] > 100_000
    assert figures["env_decisions_per_s"] > figures["env_vector_decisions_per_s"] > 30_000
    p50_ms, p99_ms = figures["policy_p50_ms"], figures["policy_p99_ms"]
    assert (p50_ms is None and p99_ms is None) or 0 < p50_ms <= p99_ms


def test_the_training_rate_counts_the_decisions_of_whole_rollouts(monkeypatch: pytest.MonkeyPatch) -> None:
    config_module = pytest.importorskip("schedrl.training.config")
    load: Callable[[Path], Any] = config_module.load_config

    def shrunk(path: Path) -> Any:
        config = load(path)
        ppo = dataclasses.replace(config.ppo, rollout_steps=4, minibatch=64, epochs=1)
        return dataclasses.replace(config, environments=32, group_size=16, ppo=ppo)

    monkeypatch.setattr(config_module, "load_config", shrunk)
    ticks = iter([10.0, 12.0])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(ticks, 12.0))
    rate = module._training_rate(get_family("jobshop"))
    assert rate == pytest.approx(2 * 32 * 4 / 2.0)


def test_parts_that_are_not_installed_read_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    family = get_family("jobshop")
    assert module._training_rate(family) is None
    assert module._policy_latency_ms(family, family.benchmark, 0.1) == (None, None)


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown family 'jobsop'"):
        module.bench("jobsop")
