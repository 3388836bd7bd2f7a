"""Small shops of every variant for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from schedrl.envs.jobshop.shop import ShopInstance

__all__ = ["play_randomly", "shops"]


@st.composite
def shops(draw: st.DrawFn, *, blocking: str | None = None) -> ShopInstance:
    """Draw a shop of any variant: modes, releases, dates, setups, outages, hidden durations, objectives, blocking."""
    kind = draw(st.sampled_from(["none", "swap", "no-swap"])) if blocking is None else blocking
    machines = draw(st.integers(1, 4))
    lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    operations = sum(lengths)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    flexible = kind == "none" and draw(st.booleans())
    # With blocking, zero durations let jobs pass through machines at a moment at which others hold them.
    least = 0 if kind == "none" else 1
    choices = [rng.permutation(machines)[: rng.integers(1, machines + 1) if flexible else 1] for _ in range(operations)]
    modes = sum(map(len, choices))
    fields: dict[str, Any] = {
        "name": "drawn",
        "machines": machines,
        "job_offset": np.cumsum([0, *lengths]),
        "mode_offset": np.cumsum([0, *map(len, choices)]),
        "machine": np.concatenate(choices),
        "duration": rng.integers(least, 6, modes),
        "blocking": kind,
    }
    if draw(st.booleans()):
        fields["actual_duration"] = fields["duration"] + rng.integers(0, 3, modes)
    if draw(st.booleans()):
        fields["release"] = rng.integers(0, 8, len(lengths))
        fields["announced"] = draw(st.booleans())
    if draw(st.booleans()):
        fields["due"] = rng.integers(0, 20, len(lengths))
        fields["weight"] = rng.integers(1, 4, len(lengths)).astype(np.float64)
        fields["objective_weights"] = draw(st.sampled_from([(0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 2.0, 0.5)]))
    if kind == "none" and draw(st.booleans()):
        families = draw(st.integers(1, 3))
        fields["setup_family"] = rng.integers(0, families, operations)
        fields["setup"] = rng.integers(0, 4, (machines, families, families))
    if draw(st.booleans()):
        edges = np.sort(rng.choice(40, size=(machines, 4), replace=False), axis=1) if machines <= 10 else None
        assert edges is not None
        fields["outage_offset"] = np.arange(0, 2 * machines + 1, 2)
        fields["outage_start"], fields["outage_end"] = edges[:, 0::2].ravel(), edges[:, 1::2].ravel()
    return ShopInstance(**fields)


def play_randomly(simulator: Any, rng: np.random.Generator) -> list[float]:
    """Play all rows to their end at random and return the sum of rewards of each."""
    count = simulator.batch
    reward, done = np.zeros(count, dtype=np.float32), np.zeros(count, dtype=np.bool_)
    total = np.zeros(count)
    while (candidates := simulator.state.candidates).any():
        action = np.where(candidates > 0, (rng.random(count) * candidates).astype(np.int32), -1).astype(np.int32)
        simulator.step(action, reward, done)
        total += reward
    return [float(value) for value in total]
