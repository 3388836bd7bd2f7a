"""Transitions carry the loads, follow the fit to Mixtral, and sampled paths repeat as its table 5 says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from schedrl.envs.moe.affinity import (
    MIXTRAL_REPETITION,
    count_transitions,
    fit_loads,
    mixtral_stickiness,
    repetition,
    sample_paths,
    stickiness_for,
    transition_matrices,
)
from schedrl.envs.moe.generators import draw_shares
from schedrl.envs.moe.model import get_model
from schedrl.envs.moe.profiles import get_profile
from schedrl.errors import ConfigError

MIXTRAL = get_model("mixtral-8x7b")


def mixtral_shares(seed: int) -> np.ndarray:
    return draw_shares(np.random.default_rng(seed), get_profile("mixtral"), MIXTRAL)[0]


@pytest.mark.parametrize("affinity", [0.0, 0.3, 0.6])
def test_transitions_carry_the_loads_of_each_layer_to_the_next(affinity: float) -> None:
    shares = mixtral_shares(0)
    transitions = transition_matrices(np.random.default_rng(1), shares, affinity=affinity)
    assert transitions.shape == (31, 8, 8)
    np.testing.assert_allclose(transitions.sum(axis=2), 1.0, atol=1e-12)
    np.testing.assert_allclose((shares[:-1, None] @ transitions)[:, 0], shares[1:], atol=1e-8)


def test_without_affinity_layers_are_independent() -> None:
    shares = mixtral_shares(2)
    transitions = transition_matrices(np.random.default_rng(0), shares, affinity=0.0)
    np.testing.assert_allclose(transitions, np.broadcast_to(shares[1:, None], transitions.shape), atol=1e-10)


def test_preferred_successors_have_the_published_shares() -> None:
    # The fit to ExFlow's hops has kappa 0.45 with 3 successors: the first gets 0.35, the first two 0.55.
    profile = get_profile("mixtral")
    first, two = [], []
    for seed in range(10):
        matrices = transition_matrices(
            np.random.default_rng(seed), mixtral_shares(seed), affinity=profile.affinity, successors=3
        )
        ranked = np.sort(matrices, axis=2)[:, :, ::-1]
        first.append(ranked[:, :, 0].mean())
        two.append(ranked[:, :, :2].sum(axis=2).mean())
    assert np.mean(first) == pytest.approx(0.35, abs=0.01)
    assert np.mean(two) == pytest.approx(0.55, abs=0.01)


def test_equal_loads_give_the_weights_by_hand() -> None:
    # One successor, kappa 0.5, four experts: 0.5 / 4 for each and 0.5 more for the successor.
    matrices = transition_matrices(np.random.default_rng(0), np.full((3, 4), 0.25), affinity=0.5, successors=1)
    np.testing.assert_allclose(np.sort(matrices, axis=2), np.broadcast_to([0.125, 0.125, 0.125, 0.625], (2, 4, 4)))


def test_fit_loads_keeps_the_row_of_an_expert_without_load() -> None:
    matrices = np.array([[[0.5, 0.5], [0.25, 0.75]]])
    fitted = fit_loads(matrices, np.array([[0.0, 1.0], [0.4, 0.6]]))
    np.testing.assert_allclose(fitted, [[[0.5, 0.5], [0.4, 0.6]]])


@pytest.mark.parametrize(("option", "value"), [("affinity", 1.0), ("affinity", -0.1), ("successors", 0)])
def test_bad_options_are_named(option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"option {option}: {value}, expected"):
        transition_matrices(np.random.default_rng(0), np.full((2, 4), 0.25), **{"affinity": 0.3, option: value})


def test_counted_transitions_by_hand() -> None:
    paths = np.array([[0, 1, 1], [0, 1, 0], [2, 0, 0]])
    counts = count_transitions(paths, 3)
    assert counts.tolist() == [[[0, 2, 0], [0, 0, 0], [1, 0, 0]], [[1, 0, 0], [1, 1, 0], [0, 0, 0]]]
    assert count_transitions(paths[:, :1], 3).shape == (0, 3, 3)
    with pytest.raises(ConfigError, match="an expert outside 0 to 1"):
        count_transitions(paths, 2)
    with pytest.raises(ConfigError, match="expected integers"):
        count_transitions(paths.astype(float), 3)


def test_paths_follow_loads_and_transitions() -> None:
    shares = mixtral_shares(3)
    transitions = transition_matrices(np.random.default_rng(0), shares, affinity=0.45)
    paths = sample_paths(np.random.default_rng(1), tokens=100_000, first=shares[0], transitions=transitions)
    assert paths.shape == (100_000, 32)
    assert paths.dtype == np.int32
    loads = np.array([np.bincount(column, minlength=8) for column in paths.T]) / len(paths)
    np.testing.assert_allclose(loads, shares, atol=0.01)
    counts = count_transitions(paths, 8)
    np.testing.assert_allclose(counts / counts.sum(axis=2, keepdims=True), transitions, atol=0.03)


def test_certain_repetition_freezes_a_layer_and_none_does_not() -> None:
    shares = np.full((2, 4), 0.25)
    transitions = np.full((1, 4, 4), 0.25)
    sticky = np.array([1.0, 0.0])
    paths = sample_paths(
        np.random.default_rng(0), tokens=4000, first=shares[0], transitions=transitions, stickiness=sticky
    )
    assert len(set(paths[:, 0].tolist())) == 1
    np.testing.assert_allclose(repetition(paths), [1.0, 0.25], atol=0.03)


def test_path_options_are_checked() -> None:
    first, transitions = np.full(4, 0.25), np.full((1, 4, 4), 0.25)
    with pytest.raises(ConfigError, match="option tokens: 0, expected at least 1"):
        sample_paths(np.random.default_rng(0), tokens=0, first=first, transitions=transitions)
    with pytest.raises(ConfigError, match=r"option stickiness: shape \(3,\), expected \(2,\)"):
        sample_paths(np.random.default_rng(0), tokens=1, first=first, transitions=transitions, stickiness=np.zeros(3))


def test_stickiness_of_mixtral_is_that_of_its_table() -> None:
    np.testing.assert_allclose(mixtral_stickiness()[[0, 15, 31]], [0.02, 0.16, 0.11], atol=0.01)
    assert mixtral_stickiness(4).shape == (4,)


def test_sampled_paths_repeat_as_table_5_says() -> None:
    wanted = np.interp(np.arange(32), list(MIXTRAL_REPETITION), list(MIXTRAL_REPETITION.values()))
    shares = np.full((32, 8), 1 / 8)
    transitions = transition_matrices(np.random.default_rng(0), shares, affinity=0.45)
    sticky = stickiness_for(wanted, shares[0], transitions)
    # Layer 0 has no layer before it: the closed form holds exactly.
    assert sticky[0] == pytest.approx(mixtral_stickiness()[0], abs=1e-9)
    paths = sample_paths(
        np.random.default_rng(1), tokens=100_000, first=shares[0], transitions=transitions, stickiness=sticky
    )
    np.testing.assert_allclose(repetition(paths), wanted, atol=0.01)


@pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no table to compare with")
def test_repetition_is_the_mean_of_the_table() -> None:
    data = json.loads(Path(os.environ["SCHEDRL_DATA"], "moe", "calibration.json").read_text(encoding="utf-8"))
    table = data["mixtral_table5_repeat_pct"]
    assert list(MIXTRAL_REPETITION) == table["layers"]
    means = np.mean(list(table["first_choice"].values()), axis=0) / 100
    np.testing.assert_allclose(list(MIXTRAL_REPETITION.values()), means, atol=1e-4)
