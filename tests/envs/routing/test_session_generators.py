"""Conversations grow by what was said, and long prompts have the statistics of the trace's first half."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.envs.routing.session_generators import BlockIds, Turn, long_context, popularity, sessions, workload_of
from schedrl.envs.routing.trace_readers import read_workload
from schedrl.envs.routing.workload import Workload, clipped, prefix_hit_share, split_halves, window
from schedrl.errors import ConfigError

NEEDS_DATA = pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no trace to compare")


def blocks_of(workload: Workload, r: int) -> list[int]:
    listed: list[int] = workload.blocks[workload.block_start[r] : workload.block_start[r + 1]].tolist()
    return listed


def test_ids_of_growing_texts() -> None:
    ids = BlockIds(16)
    first = ids.grown([], 40)
    assert first == [0, 1]
    assert ids.grown(first, 47) == [0, 1]
    assert ids.grown(first, 48) == [0, 1, 2]
    # Another text with the same beginning has other blocks behind it.
    assert ids.grown(first, 64) == [0, 1, 3, 4]
    assert ids.grown(first, 31) == [0]


def test_turns_are_sorted_and_programs_renumbered() -> None:
    late = Turn(arrival_s=2.0, prompt_tokens=5, output_tokens=1, program=7, tool=3)
    early = Turn(arrival_s=1.0, prompt_tokens=6, output_tokens=2, program=9)
    last = Turn(arrival_s=3.0, prompt_tokens=7, output_tokens=3, program=7, after=[late], pause_s=0.5)
    workload = workload_of([late, last, early], 16, deadline_s=[float(k) for k in range(10)])
    assert workload.prompt_tokens.tolist() == [6, 5, 7]
    assert (workload.program.tolist(), workload.deadline_s.tolist()) == ([1, 0, 0], [7.0, 9.0])
    assert (workload.after_start.tolist(), workload.after.tolist()) == ([0, 0, 0, 1], [1])


def test_popularity_is_zipfs() -> None:
    np.testing.assert_allclose(popularity(3), np.array([6, 3, 2]) / 11)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), requests=st.integers(1, 120), rate=st.sampled_from([0.5, 10.0, 100.0]))
def test_each_turn_begins_with_the_one_before_and_its_answer(seed: int, requests: int, rate: float) -> None:
    workload = sessions(np.random.default_rng(seed), requests=requests, requests_per_s=rate)
    assert workload.requests == requests
    assert (np.diff(workload.arrival_s) >= 0).all()
    assert workload.arrival_s[-1] < requests / rate
    assert int((workload.prompt_tokens + workload.output_tokens).max()) <= 24_000
    for r in range(requests):
        own = blocks_of(workload, r)
        assert len(own) == (workload.prompt_tokens[r] + workload.output_tokens[r]) // 64
        for before in workload.after[workload.after_start[r] : workload.after_start[r + 1]]:
            listed = blocks_of(workload, int(before))
            assert own[: len(listed)] == listed
            assert workload.prompt_tokens[r] > workload.prompt_tokens[before] + workload.output_tokens[before]
            assert workload.tenant[r] == workload.tenant[before]
            assert workload.pause_s[r] > 0


def test_sessions_of_a_tenant_share_the_system_prompt_alone() -> None:
    workload = sessions(np.random.default_rng(4), requests=300, tenants=2, turns=1.0, system_tokens=640)
    assert len(workload.after) == 0
    firsts = {
        int(tenant): {blocks_of(workload, r)[0] for r in np.flatnonzero(workload.tenant == tenant)} for tenant in (0, 1)
    }
    assert all(len(first) == 1 for first in firsts.values())
    assert firsts[0] != firsts[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"requests": 0}, "option requests: 0, expected 1 to"), ({"turns": 0.5}, "option turns: 0.5, expected 1 to")],
)
def test_options_outside_their_range_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sessions(np.random.default_rng(0), **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="option batch_s: -1, expected 0 to"):
        long_context(np.random.default_rng(0), batch_s=-1)


def test_long_prompts_come_in_batches_and_share_the_first_block() -> None:
    workload = long_context(np.random.default_rng(2), requests=500, requests_per_s=3.2)
    assert workload.requests == 500
    np.testing.assert_allclose(workload.arrival_s % 3.0, 0.0, atol=1e-6)
    assert workload.prompt_tokens.max() == 20480
    assert {blocks_of(workload, r)[0] for r in range(500)} == {0}
    spread = long_context(np.random.default_rng(2), requests=500, requests_per_s=12.0, batch_s=0.0)
    assert len(np.unique(spread.arrival_s)) == 500
    assert spread.requests_per_s == pytest.approx(12.0, rel=0.02)


def test_long_prompts_have_the_statistics_of_the_trace() -> None:
    # First half of Mooncake: prompts of mean 12.8k (9.3k when cut at 20480) and median 7.6k, answers of mean 347.
    workload = long_context(np.random.default_rng(1), requests=6000, prompt_cap=10**6)
    assert workload.prompt_tokens.mean() == pytest.approx(12_781, rel=0.06)
    assert np.median(workload.prompt_tokens) == pytest.approx(7_590, rel=0.12)
    assert np.minimum(workload.prompt_tokens, 20480).mean() == pytest.approx(9_342, rel=0.05)
    assert workload.output_tokens.mean() == pytest.approx(346.8, rel=0.05)
    assert prefix_hit_share(workload) == pytest.approx(0.353, abs=0.06)


@NEEDS_DATA
def test_windows_hit_as_often_as_those_of_the_trace() -> None:
    trace = read_workload(Path(os.environ["SCHEDRL_DATA"], "routing", "mooncake", "conversation_trace.jsonl"))
    half = clipped(split_halves(trace)[0], 20480)
    drawn = long_context(np.random.default_rng(1), requests=6000)
    for count, tolerance in ((256, 0.04), (1000, 0.06)):
        shares = [
            np.mean([prefix_hit_share(window(source, first=k, count=count)) for k in range(0, 5001, 1000)])
            for source in (half, drawn)
        ]
        assert shares[1] == pytest.approx(shares[0], abs=tolerance)
