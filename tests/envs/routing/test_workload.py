"""Workloads are cut, scaled and routed without losing a block, a predecessor or a deadline that belongs to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.envs.routing.fleets import fleet
from schedrl.envs.routing.generators import agentic
from schedrl.envs.routing.workload import (
    Workload,
    clipped,
    prefix_hit_share,
    rescaled,
    route,
    selected,
    split_halves,
    window,
)
from schedrl.errors import ConfigError, InstanceError


def small() -> Workload:
    """Two programs: requests 0, 2, 3 with 3 after 0 and 2; request 1 alone."""
    return Workload(
        arrival_s=np.array([1.0, 2.0, 3.0, 5.0]),
        prompt_tokens=np.array([40, 50, 64, 100]),
        output_tokens=np.array([8, 9, 10, 11]),
        block_start=np.array([0, 2, 5, 9, 15]),
        blocks=np.array([0, 1, 0, 2, 3, 0, 1, 4, 5, 0, 1, 4, 5, 6, 7]),
        block_tokens=16,
        program=np.array([0, 1, 0, 0]),
        deadline_s=np.array([9.0, np.inf]),
        after_start=np.array([0, 0, 0, 0, 2]),
        after=np.array([0, 2]),
        pause_s=np.array([0.0, 0.0, 0.0, 0.5]),
        tool=np.array([-1, -1, -1, 2]),
    )


def test_defaults_fill_what_is_left_empty() -> None:
    workload = Workload(arrival_s=[0.0, 1.0], prompt_tokens=[3, 4], output_tokens=[1, 1])
    assert workload.program.tolist() == [0, 1]
    assert workload.deadline_s.tolist() == [np.inf, np.inf]
    assert (workload.tool.tolist(), workload.block_start.tolist(), workload.after_start.tolist()) == (
        [-1, -1],
        [0, 0, 0],
        [0, 0, 0],
    )
    assert (workload.requests_per_s, workload.duration_s) == (1.0, 1.0)
    with pytest.raises(ValueError, match="read-only"):
        workload.prompt_tokens[0] = 5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"arrival_s": []}, "field arrival_s: no requests"),
        ({"output_tokens": [1]}, "field output_tokens: 1 values, expected 2"),
        ({"block_start": [0, 1]}, "field block_start: 2 values, expected 3"),
        ({"deadline_s": [1.0]}, "field deadline_s: 1 values, expected 2"),
    ],
)
def test_arrays_that_do_not_match_are_named(fields: dict[str, list[float]], message: str) -> None:
    with pytest.raises(InstanceError, match=message):
        Workload(**({"arrival_s": [0.0, 1.0], "prompt_tokens": [3, 4], "output_tokens": [1, 1]} | fields))


def test_windows_in_time_and_in_requests() -> None:
    later = window(small(), 2.0)
    assert later.arrival_s.tolist() == [0.0, 1.0, 3.0]
    assert later.program.tolist() == [1, 0, 0]
    assert later.deadline_s.tolist() == [9.0, np.inf]
    # Request 0 is cut off; what was request 2 is now request 1.
    assert (later.after_start.tolist(), later.after.tolist()) == ([0, 0, 0, 1], [1])
    assert later.blocks[later.block_start[1] : later.block_start[2]].tolist() == [0, 1, 4, 5]
    assert window(small(), 2.0, 3.0).prompt_tokens.tolist() == [50]
    counted = window(small(), first=1, count=2)
    assert (counted.arrival_s.tolist(), counted.after.tolist(), counted.program.tolist()) == ([0.0, 1.0], [], [1, 0])
    for bad in ({"start_s": 7.0}, {"first": 2, "count": 5}, {"first": 4}, {"start_s": 1.0, "count": 1}):
        with pytest.raises(ConfigError, match="window"):
            window(small(), **bad)


def test_halves_join_to_the_whole() -> None:
    first, second = split_halves(small())
    assert (first.requests, second.requests) == (2, 2)
    assert np.concatenate([first.blocks, second.blocks]).tolist() == small().blocks.tolist()


def test_rates_change_arrivals_alone() -> None:
    faster = rescaled(small(), 7.5)
    np.testing.assert_allclose(faster.arrival_s, [0.1, 0.2, 0.3, 0.5])
    assert faster.requests_per_s == pytest.approx(7.5)
    assert faster.pause_s.tolist() == small().pause_s.tolist()
    with pytest.raises(ConfigError, match="requests_per_s: 0, expected a positive number"):
        rescaled(small(), 0)
    with pytest.raises(ConfigError, match="arrive at once"):
        rescaled(window(small(), first=0, count=1), 1.0)


def test_clipped_prompts_lose_blocks_beyond_the_cut() -> None:
    cut = clipped(small(), 50)
    assert cut.prompt_tokens.tolist() == [40, 50, 50, 50]
    assert np.diff(cut.block_start).tolist() == [2, 3, 3, 3]
    assert cut.blocks.tolist() == [0, 1, 0, 2, 3, 0, 1, 4, 0, 1, 4]
    with pytest.raises(ConfigError, match="prompt_tokens: 0, expected at least 1"):
        clipped(small(), 0)


def test_hit_share_of_a_worked_example() -> None:
    # Hits: none; block 0; blocks 0 and 1; blocks 0, 1, 4 and 5.
    assert prefix_hit_share(small()) == pytest.approx((1 + 2 + 4) * 16 / 254)


def test_routed_instance_has_the_workload_and_the_models_bytes() -> None:
    instance = route(small(), fleet({"l4": 2}), "small", ttft_slo_s=1.5, preference=(1.0, 0.5, 0.0))
    assert (instance.kv_bytes_per_token, instance.ttft_slo_s, instance.block_tokens) == (57344.0, 1.5, 16)
    assert instance.after.tolist() == [0, 2]
    assert instance.deadline_s.tolist() == [9.0, np.inf]
    assert instance.fits.all()


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), data=st.data())
def test_any_selection_keeps_what_its_requests_have(seed: int, data: st.DataObject) -> None:
    whole = agentic(np.random.default_rng(seed), requests=30)
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=30, max_size=30).filter(any)))
    part = selected(whole, keep)
    index = np.flatnonzero(keep)
    assert part.program.max() + 1 == len(part.deadline_s) == len(np.unique(part.program))
    for r, old in enumerate(index):
        assert (
            part.blocks[part.block_start[r] : part.block_start[r + 1]].tolist()
            == whole.blocks[whole.block_start[old] : whole.block_start[old + 1]].tolist()
        )
        kept = [b for b in whole.after[whole.after_start[old] : whole.after_start[old + 1]] if keep[b]]
        assert index[part.after[part.after_start[r] : part.after_start[r + 1]]].tolist() == kept
        assert part.deadline_s[part.program[r]] == whole.deadline_s[whole.program[old]]
    route(part, fleet({"l4": 1}), "part")
