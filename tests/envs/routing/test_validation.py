"""The rules of routing instances, each with its message."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from schedrl.envs.routing.instance import RoutingInstance
from schedrl.errors import InstanceError
from tests.envs.routing.small_fleets import server_of, workload_of

INSTANCE = workload_of([(0.0, 20, 4), (1.0, 40, 2), (2.0, 20, 1)], blocks=[[0], [0, 1], [0]])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fleet": ()}, "field fleet: empty, expected at least one serving instance"),
        ({"fleet": ("a100",)}, "field fleet[0]: expected a serving instance, got 'a100'"),
        (
            {"fleet": (server_of(role="decode"),)},
            "field fleet: all are decode instances, expected one of each role or mixed",
        ),
        (
            {"fleet": (server_of(role="prefill"),)},
            "field fleet: all are prefill instances, expected one of each role or mixed",
        ),
        (
            {"fleet": (server_of(), server_of(role="decode"))},
            "field fleet: mixed beside prefill or decode instances, expected either",
        ),
        (
            {"fleet": (server_of(role="prefill"), server_of(role="decode", retire_s=9.0))},
            "field fleet: all decode instances retire, expected one that stays",
        ),
        (
            {"fleet": (server_of(role="prefill"), server_of(role="decode", kv_tokens=50))},
            "field fleet: request 1 of 42 tokens does not fit a decode instance",
        ),
        (
            {"fleet": (server_of(kv_tokens=57),)},
            "field prompt_tokens: request 1 has 40 prompt and 2 output tokens, more than fit in the memory of any"
            " instance (57 tokens)",
        ),
        ({"arrival_s": []}, "field arrival_s: no requests"),
        ({"arrival_s": [0.0, 2.0, 1.0]}, "field arrival_s: request 2 has 1.0, expected no time before that of the"),
        ({"arrival_s": [-1.0, 2.0, 3.0]}, "field arrival_s: request 0 has -1.0, expected a finite time of at least 0"),
        ({"arrival_s": [0.0, 1.0, np.inf]}, "field arrival_s: request 2 has inf, expected a finite time of at least 0"),
        ({"arrival_s": ["a", "b", "c"]}, "field arrival_s: expected a list of numbers, got <U1 (3,)"),
        ({"arrival_s": [[0.0], [1.0, 2.0]]}, "field arrival_s: expected a list of numbers"),
        ({"prompt_tokens": [1, 0, 5]}, "field prompt_tokens: request 1 has 0, expected at least 1"),
        ({"prompt_tokens": [1, 2]}, "field prompt_tokens: 2 values for 3 requests"),
        ({"prompt_tokens": [1.5, 2.0, 3.0]}, "field prompt_tokens: expected a list of integers, got float64 (3,)"),
        ({"prompt_tokens": [1, 2**31, 3]}, "field prompt_tokens: a value outside int32"),
        ({"output_tokens": [1, 1, -3]}, "field output_tokens: request 2 has -3, expected at least 1"),
        ({"pause_s": [0.0, -0.5, 0.0]}, "field pause_s: request 1 has -0.5, expected a finite time of at least 0"),
        ({"tenant": [0]}, "field tenant: 1 values for 3 requests"),
        ({"block_tokens": 24}, "field block_tokens: 24, expected a positive multiple of 16"),
        ({"block_tokens": 16.0}, "field block_tokens: 16.0, expected a positive multiple of 16"),
        ({"block_start": [0, 1, 3]}, "field block_start: expected 4 rising positions from 0 to 4"),
        ({"block_start": [0, 3, 2, 4]}, "field block_start: expected 4 rising positions from 0 to 4"),
        (
            {"block_start": [0, 3, 4, 4]},
            "field blocks: request 0 has 3, expected no more blocks of 16 tokens than the request has",
        ),
        ({"blocks": [0, 0, -1, 0]}, "field blocks: a negative id, expected at least 0"),
        (
            {"blocks": [0, 1, 0, 0]},
            "field blocks: request 1 has block 0 behind 1, expected it behind -1 as in a request before (-1: at the"
            " beginning)",
        ),
        ({"program": [0, 2, 2]}, "field program: expected numbers from 0 without a gap"),
        ({"program": [0, -1, 1]}, "field program: expected numbers from 0 without a gap"),
        ({"deadline_s": [1.0]}, "field deadline_s: 1 values for 3 programs"),
        ({"deadline_s": [1.0, 0.0, 2.0]}, "field deadline_s: program 1: expected above 0"),
        ({"deadline_s": [1.0, np.nan, 2.0]}, "field deadline_s: program 1: expected above 0"),
        ({"after_start": [0, 0, 0, 1], "after": [2]}, "field after: request 2 names 2, expected an earlier request"),
        ({"after_start": [0, 0, 0, 1], "after": [-1]}, "field after: request 2 names -1, expected an earlier request"),
        ({"after_start": [0, 0, 0, 1], "after": [0]}, "field after: request 2 names one of another program"),
        ({"after_start": [1, 1, 1, 1], "after": [0]}, "field after_start: expected 4 rising positions from 0 to 1"),
        ({"ttft_slo_s": 0.0}, "field ttft_slo_s: 0.0, expected a number above 0"),
        ({"tpot_slo_s": float("nan")}, "field tpot_slo_s: nan, expected a number above 0"),
        ({"link_bytes_per_s": "fast"}, "field link_bytes_per_s: 'fast', expected a number above 0"),
        ({"signal_refresh_s": -0.1}, "field signal_refresh_s: -0.1, expected a finite number of at least 0"),
        ({"link_latency_s": float("inf")}, "field link_latency_s: inf, expected a finite number of at least 0"),
        ({"downtime_s": None}, "field downtime_s: None, expected a finite number of at least 0"),
        ({"preference": (1.0, 2.0)}, "field preference: (1.0, 2.0), expected three weights of at least 0, not all 0"),
        ({"preference": (0.0, 0.0, 0.0)}, "field preference: (0.0, 0.0, 0.0), expected three weights of at least 0"),
    ],
)
def test_bad_fields_are_named_in_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InstanceError) as error:
        dataclasses.replace(INSTANCE, **fields)
    assert str(error.value).startswith(f"w: {message}") and "\n" not in str(error.value)


def test_bad_files_are_named() -> None:
    data = json.loads(INSTANCE.to_json())
    for changes, message in (
        ({"schema": "x"}, "x.json: field schema: expected 'schedrl/routing-instance/1', got 'x'"),
        ({"colour": 1}, "x.json: field colour: unknown"),
        ({"name": 3}, "x.json: field name: expected str, got 3"),
        ({"fleet": {}}, "x.json: field fleet: expected a list, got {}"),
        ({"fleet": [{}]}, "x.json: fleet[0]: field name: missing"),
        ({"deadline_s": 5}, "x.json: field deadline_s: expected a list, got 5"),
        ({"prompt_tokens": [0, 1, 1]}, "w: field prompt_tokens: request 0 has 0, expected at least 1"),
    ):
        with pytest.raises(InstanceError) as error:
            RoutingInstance.from_json(json.dumps(data | changes), source="x.json")
        assert message in str(error.value) and "\n" not in str(error.value)
    del data["arrival_s"]
    for text, message in (
        ("{", "x.json: not valid JSON"),
        ("[]", "x.json: field schema: expected 'schedrl/routing-instance/1', got None"),
        (json.dumps(data), "x.json: field arrival_s: missing"),
    ):
        with pytest.raises(InstanceError) as error:
            RoutingInstance.from_json(text, source="x.json")
        assert str(error.value).startswith(message)
