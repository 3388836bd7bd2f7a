"""Workflows wait for all branches of the stage before, repeat what they said, and have deadlines that can be met."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.envs.routing.agentic import TOOLS, agentic
from schedrl.envs.routing.workload import Workload
from schedrl.errors import ConfigError


def predecessors(workload: Workload, r: int) -> list[int]:
    named: list[int] = workload.after[workload.after_start[r] : workload.after_start[r + 1]].tolist()
    return named


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), requests=st.integers(1, 120), rate=st.sampled_from([0.5, 10.0, 100.0]))
def test_stages_follow_each_other(seed: int, requests: int, rate: float) -> None:
    workload = agentic(np.random.default_rng(seed), requests=requests, requests_per_s=rate)
    assert workload.requests == requests
    assert (np.diff(workload.arrival_s) >= 0).all()
    assert set(workload.priority.tolist()) <= {0, 1, 2}
    for r in range(requests):
        before = predecessors(workload, r)
        own = workload.blocks[workload.block_start[r] : workload.block_start[r + 1]]
        assert len(own) == (workload.prompt_tokens[r] + workload.output_tokens[r]) // 64
        # A tool is used between stages and nowhere else.
        assert (workload.tool[r] >= 0) == (workload.pause_s[r] > 0) == bool(before)
        assert workload.tool[r] < len(TOOLS)
        if before:
            assert len({tuple(predecessors(workload, b)) for b in before}) == 1
            assert workload.prompt_tokens[r] > workload.prompt_tokens[before].max()


def blocks_of(workload: Workload, r: int) -> list[int]:
    listed: list[int] = workload.blocks[workload.block_start[r] : workload.block_start[r + 1]].tolist()
    return listed


def test_shares_and_widths_are_those_asked_for() -> None:
    workload = agentic(np.random.default_rng(0), requests=3000, stages=6, branches=3)
    finite = np.isfinite(workload.deadline_s)
    assert finite.mean() == pytest.approx(0.7, abs=0.05)
    assert workload.deadline_s[finite].min() > 0.1
    widths = np.diff(workload.after_start)
    assert set(widths.tolist()) == {0, 1, 2, 3}
    assert workload.requests_per_s == pytest.approx(10.0, rel=0.02)
    assert len(set(workload.tool[workload.tool >= 0].tolist())) == len(TOOLS)


def test_a_chain_has_the_deadline_of_its_nominal_time() -> None:
    workload = agentic(np.random.default_rng(3), requests=400, branches=1, deadline_share=1.0)
    nominal = 0.1 + workload.prompt_tokens / 12_000 + 0.015 * workload.output_tokens
    for program, deadline in enumerate(workload.deadline_s):
        own = np.flatnonzero(workload.program == program)
        slack = deadline / (nominal[own].sum() + workload.pause_s[own].sum())
        assert 1.2 <= slack <= 4.0
        for r in own:
            for before in predecessors(workload, r):
                listed = blocks_of(workload, before)
                assert blocks_of(workload, r)[: len(listed)] == listed


def test_options_outside_their_range_are_named() -> None:
    with pytest.raises(ConfigError, match="option stages: 1, expected 2 to 1000"):
        agentic(np.random.default_rng(0), stages=1)
    with pytest.raises(ConfigError, match="option deadline_share: 2, expected 0 to 1"):
        agentic(np.random.default_rng(0), deadline_share=2)
