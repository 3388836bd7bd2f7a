from __future__ import annotations

from importlib import resources

from schedrl.experiments.benchmarks.speed_socdag import measure_speed


def test_figures_are_there_and_plausible() -> None:
    figures = measure_speed(0.2)
    assert set(figures) == {
        "heft_1000x8_s",
        "stream_16pe_decisions_per_s",
        "stream_16pe_decisions_per_s_without_observations",
        "policy_100_candidates_ms",
    }
    heft, observed, bare = list(figures.values())[:3]
    assert heft is not None and observed is not None and bare is not None
    assert 0.0 < heft < 1.0
    assert 0.0 < observed < bare
    weights = resources.files("schedrl.baselines.socdag") / "weights" / "socdag-stream.schedrl"
    assert (figures["policy_100_candidates_ms"] is None) == (not weights.is_file())
