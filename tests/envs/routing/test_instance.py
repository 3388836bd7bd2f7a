"""Routing instances: files, defaults, and which instances hold which requests."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given

from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.state import room_of
from tests.envs.routing.small_fleets import SEEDS, random_instance, server_of, workload_of


@given(SEEDS)
def test_instances_come_back_equal_from_json(seed: int) -> None:
    instance = random_instance(seed)
    again = RoutingInstance.from_json(instance.to_json())
    assert again == instance and hash(again) == hash(instance)
    assert dataclasses.replace(instance, ttft_slo_s=9.0) != instance
    assert instance != instance.name


def test_what_is_left_out_is_filled_in() -> None:
    instance = workload_of([(0.0, 20, 4), (1.0, 40, 2)])
    assert (instance.requests, instance.programs, instance.size_label) == (2, 2, "2 on 1")
    assert instance.program.tolist() == [0, 1] and np.isinf(instance.deadline_s).all()
    assert (instance.pause_s.tolist(), instance.tool.tolist()) == ([0.0, 0.0], [-1, -1])
    assert (instance.priority.tolist(), instance.tenant.tolist()) == ([0, 0], [0, 0])
    assert instance.after_start.tolist() == [0, 0, 0]


def test_arrays_cannot_be_written() -> None:
    instance = workload_of([(0.0, 20, 4)])
    with pytest.raises(ValueError, match="read-only"):
        instance.prompt_tokens[0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        instance.name = "other"  # type: ignore[misc]


def test_a_page_to_spare_is_needed() -> None:
    # 20 + 4 tokens and a page of 16.
    fleet = [server_of("a", kv_tokens=39), server_of("b", kv_tokens=40)]
    assert workload_of([(0.0, 20, 4)], fleet).fits.tolist() == [[False, True]]
    apart = [server_of("p", role="prefill"), server_of("d", role="decode")]
    assert workload_of([(0.0, 20, 4)], apart).fits.tolist() == [[True, False]]


def test_room_counts_whole_blocks_alone() -> None:
    # 20 + 4 tokens: the second block is never whole. Of 40 + 9 tokens three are, as the last token is not computed.
    instance = workload_of([(0.0, 20, 4), (1.0, 40, 9)], blocks=[[0, 5], [0, 1, 2, 3]], signal_refresh_s=0.1)
    room = room_of([instance])
    assert (room.requests, room.fleet, room.listed, room.blocks, room.stale) == (2, 1, 4, 3, 3)
    assert (room.programs, room.sequences) == (2, 2)
    assert room_of([dataclasses.replace(instance, signal_refresh_s=0.0)]).stale == 0
