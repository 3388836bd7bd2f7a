from __future__ import annotations

import numpy as np
import pytest

from schedrl.evaluation.statistics import bootstrap, interquartile_mean, mean, sign_rank_p, win_tie_loss


def test_interquartile_mean_drops_a_quarter_at_each_end() -> None:
    # Of eight values the two lowest and the two highest go: (3 + 4 + 5 + 6) / 4.
    assert float(interquartile_mean(np.array([100.0, 1, 2, 3, 4, 5, 6, -50]))) == 3.5
    assert float(interquartile_mean(np.array([1.0, 2, 9]))) == 4.0
    assert interquartile_mean(np.array([[0.0, 1, 3, 50], [2, 2, 4, 9]])).tolist() == [2.0, 3.0]


def test_interquartile_mean_equals_the_trimmed_mean_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for size in range(1, 30):
        values = np.random.default_rng(size).normal(size=size)
        assert float(interquartile_mean(values)) == pytest.approx(stats.trim_mean(values, 0.25))


def test_bootstrap_intervals_cover_the_true_mean_about_as_often_as_promised() -> None:
    rng = np.random.default_rng(5)
    strata = ["small"] * 30 + ["large"] * 30
    covered = 0
    for _ in range(300):
        values = np.concatenate([rng.normal(1.0, 0.5, 30), rng.normal(3.0, 2.0, 30)])
        interval = bootstrap(values, strata, mean, rng, replicates=500)
        covered += interval.low <= 2.0 <= interval.high
    assert 0.91 <= covered / 300 <= 0.97


def test_bootstrap_draws_within_strata() -> None:
    # Without variation inside the strata there is nothing to be uncertain about, however far apart they are.
    interval = bootstrap(np.array([1.0, 1, 9, 9]), ["a", "a", "b", "b"], mean, np.random.default_rng(0))
    assert (interval.low, interval.value, interval.high) == (5.0, 5.0, 5.0)
    mixed = bootstrap(np.array([1.0, 1, 9, 9]), ["a"] * 4, mean, np.random.default_rng(0))
    assert mixed.low == 1.0 and mixed.high == 9.0


def test_strata_of_one_value_are_pooled() -> None:
    interval = bootstrap(np.array([1.0, 2, 3, 4]), list("abcd"), mean, np.random.default_rng(0))
    assert interval.low < 2.0 < 3.0 < interval.high


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(1).random(20)
    one, two = (bootstrap(values, ["x"] * 20, mean, np.random.default_rng(7)) for _ in range(2))
    assert one == two


def test_wins_ties_and_losses_count_missing_solutions_as_lost() -> None:
    ours = np.array([1.0, 2, 3, np.nan, 5, np.nan])
    theirs = np.array([2.0, 2, 1, 4, np.nan, np.nan])
    score = win_tie_loss(ours, theirs)
    assert (score.wins, score.ties, score.losses) == (2, 1, 2)


def test_sign_rank_p_of_a_clean_sweep_is_two_over_all_sign_patterns() -> None:
    # Five differences of one sign: 2 of the 2^5 sign patterns are as extreme.
    assert sign_rank_p(np.arange(5.0), np.arange(5.0) + np.arange(1, 6)) == pytest.approx(2 / 32)
    assert sign_rank_p(np.ones(4), np.ones(4)) == 1.0


@pytest.mark.parametrize("size", [6, 15, 40])
def test_sign_rank_p_equals_scipy_without_ties(size: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(size)
    ours, theirs = rng.normal(size=size), rng.normal(0.3, 1.0, size=size)
    expected = stats.wilcoxon(ours, theirs, method="exact").pvalue
    assert sign_rank_p(ours, theirs) == pytest.approx(expected, rel=1e-9)


def test_sign_rank_p_equals_enumeration_with_ties() -> None:
    difference = np.array([1.0, 1, -2, 2, 3, -1, 4])
    ranks = np.array([2.0, 2, 4.5, 4.5, 6, 2, 7])
    sums = [sum(rank for bit, rank in enumerate(ranks) if pattern >> bit & 1) for pattern in range(2**7)]
    least = min(ranks[difference > 0].sum(), ranks[difference < 0].sum())
    expected = min(1.0, 2 * np.mean(np.array(sums) <= least))
    assert sign_rank_p(difference, np.zeros(7)) == pytest.approx(expected)


def test_sign_rank_p_of_many_pairs_is_close_to_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(2)
    ours, theirs = rng.normal(size=500), rng.normal(0.1, 1.0, size=500)
    expected = stats.wilcoxon(ours, theirs, method="asymptotic").pvalue
    assert sign_rank_p(ours, theirs) == pytest.approx(expected, rel=1e-6)
