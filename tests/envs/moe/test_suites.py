"""Suites hold the instances they claim, always the same; those on measured counts say what is missing without them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from schedrl.arrays import F64
from schedrl.envs.moe.eplb import rebalance_experts
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.suites import SUITES, eplb_readme
from schedrl.errors import InstanceError

NEEDS_DATA = pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no measured counts")
MEASURED = ("out-of-sample", "drift")
FILE = Path("moe", "harmoeny", "qwen1.5-moe-a2.7b_expert_counts.csv")


def instances(suite: str) -> dict[str, ExpertPlacementInstance]:
    loaded = {}
    for entry in SUITES[suite].load():
        assert isinstance(entry.instance, ExpertPlacementInstance)
        loaded[entry.instance.name] = entry.instance
    return loaded


def test_names_match() -> None:
    assert {name: suite.name for name, suite in SUITES.items()} == {name: name for name in SUITES}
    assert list(SUITES) == ["eplb-readme", "out-of-sample", "drift", "moe-demo"]


def test_eplb_example_gives_the_printed_loads() -> None:
    instance = eplb_readme()
    assert instances("eplb-readme") == {"eplb-readme": instance}
    assert instance.planned == len(instance.scored) == instance.plans == 1
    plan, _, replicas = rebalance_experts(instance.scored[0], 16, instance.model.groups, nodes=2, devices=8)
    slots = np.take_along_axis(instance.scored[0] / replicas, plan.astype(np.int64), axis=1)
    np.testing.assert_allclose(
        slots.reshape(2, 8, 2).sum(axis=2),
        [[121.5, 86.5, 125, 113, 147.5, 131.5, 156, 152], [173, 179.5, 120.5, 172, 123, 152, 118.5, 117.5]],
    )


def jumps(instance: ExpertPlacementInstance) -> F64:
    """Return the distance (W - 1,) of successive windows' loads, mean over layers."""
    shares = instance.counts / instance.counts.sum(axis=2, keepdims=True)
    return np.asarray(np.abs(np.diff(shares, axis=0)).sum(axis=2).mean(axis=1) / 2)


@NEEDS_DATA
def test_out_of_sample_has_four_recordings_and_six_of_one_domain() -> None:
    loaded = instances("out-of-sample")
    assert list(loaded)[:4] == ["qwen15-bookcorpus", "qwen15-random", "qwen15-wikitext", "qwen15-wmt19"]
    assert len(loaded) == 10
    for instance in loaded.values():
        assert (instance.planned, len(instance.counts)) == (4, 20)
        assert instance.initial is not None
        assert jumps(instance).max() < 0.2
    recorded = loaded["qwen15-bookcorpus"]
    assert (recorded.devices, recorded.total_slots, recorded.layers) == (6, 66, 12)
    # First row of the file; every pass has 98,304 picks.
    assert (recorded.counts[0, 0, :5] == np.array([555, 2248, 1219, 4864, 4060]) * 100).all()
    assert (recorded.counts.sum(axis=2) == 98_304 * recorded.iterations).all()


@NEEDS_DATA
def test_drift_changes_domain_in_every_instance() -> None:
    loaded = instances("drift")
    assert len(loaded) == 10
    measured = loaded.pop("qwen15-four-domains")
    # Ten passes of each data set.
    assert (np.nonzero(jumps(measured) > 0.2)[0] + 1).tolist() == [10, 20, 30]
    for name, instance in loaded.items():
        every = 6 + int(name.rpartition("-")[2]) % 3
        changes = np.nonzero(jumps(instance) > 0.25)[0] + 1
        assert len(instance.scored) == 24
        assert len(changes) >= 2
        assert set(np.diff(changes)) == {every}


def test_demo_is_small_and_the_same_each_time() -> None:
    first = instances("moe-demo")
    SUITES["moe-demo"].load.cache_clear()  # type: ignore[attr-defined]
    assert instances("moe-demo") == first
    assert len(first) == 4
    assert max(instance.counts.size for instance in first.values()) < 5000


@pytest.mark.parametrize("suite", MEASURED)
def test_missing_data_is_one_line(suite: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SCHEDRL_DATA", raising=False)
    with pytest.raises(InstanceError, match=f"suite {suite}: SCHEDRL_DATA is unset, expected the folder that holds"):
        SUITES[suite].load()
    monkeypatch.setenv("SCHEDRL_DATA", str(tmp_path))
    with pytest.raises(InstanceError, match=f"suite {suite}: no file {tmp_path / FILE}, expected it there"):
        SUITES[suite].load()


@NEEDS_DATA
@pytest.mark.parametrize("suite", MEASURED)
def test_generated_ones_are_distinct(suite: str) -> None:
    loaded = instances(suite)
    assert len({hash(instance) for instance in loaded.values()}) == len(loaded) == len(SUITES[suite].load())
