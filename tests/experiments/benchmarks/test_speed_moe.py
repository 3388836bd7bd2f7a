from __future__ import annotations

from schedrl.experiments.benchmarks.speed_moe import measure_speed


def test_figures_are_there_and_plausible() -> None:
    figures = measure_speed(0.2)
    assert set(figures) == {"eplb_hierarchical_ms", "eplb_global_ms", "lpt_swap_ms", "horizon_rule_ms"}
    assert all(0.0 < value < 1000.0 for value in figures.values())
    # Swapping until nothing improves costs more than packing once, and the rule plans anew and then compares.
    assert figures["eplb_global_ms"] < figures["lpt_swap_ms"] < figures["horizon_rule_ms"]
