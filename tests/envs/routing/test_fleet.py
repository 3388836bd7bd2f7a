"""Serving instances: what each field may be, and plain data."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from schedrl.devices.serving_time import COEFFICIENTS, EXPERT_MISS
from schedrl.envs.routing.fleet import serving_instance_from_dict, serving_instance_to_dict
from schedrl.errors import InstanceError
from tests.envs.routing.small_fleets import row_of, server_of

RISING = row_of()
RISING[EXPERT_MISS] = 0.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"coefficients": np.zeros(3)}, f"field coefficients: expected {COEFFICIENTS} finite numbers of at least 0"),
        ({"coefficients": -row_of()}, f"field coefficients: expected {COEFFICIENTS} finite numbers of at least 0"),
        ({"coefficients": row_of() * np.nan}, f"field coefficients: expected {COEFFICIENTS} finite numbers"),
        ({"coefficients": RISING}, f"field coefficients: number {EXPERT_MISS} is above 0, expected a logarithm"),
        ({"role": "both"}, "field role: 'both', expected one of mixed, prefill, decode"),
        ({"kv_tokens": 0}, "field kv_tokens: 0, expected an integer of at least 1"),
        ({"kv_tokens": 2.5}, "field kv_tokens: 2.5, expected an integer of at least 1"),
        ({"kv_tokens": 2**31}, "field kv_tokens: 2147483648, expected an integer of at least 1"),
        ({"tensor_parallel": 0}, "field tensor_parallel: 0, expected an integer of at least 1"),
        ({"cache_tokens": -2}, "field cache_tokens: -2, expected an integer of at least -1"),
        ({"token_budget": True}, "field token_budget: True, expected an integer of at least 1"),
        ({"max_sequences": 0}, "field max_sequences: 0, expected an integer of at least 1"),
        ({"max_sequences": 65}, "field token_budget: 64, expected at least max_sequences, 65"),
        ({"price_usd_per_h": -1.0}, "field price_usd_per_h: -1.0, expected a number of at least 0"),
        ({"power_w": float("nan")}, "field power_w: nan, expected a number of at least 0"),
        ({"ready_s": float("inf")}, "field ready_s: inf, expected a number of at least 0"),
        ({"ready_s": "now"}, "field ready_s: 'now', expected a number of at least 0"),
        ({"ready_s": 3.0, "retire_s": 3.0}, "field retire_s: 3.0, expected later than ready_s 3.0"),
        ({"quality": 1.5}, "field quality: 1.5, expected at most 1"),
    ],
)
def test_bad_fields_are_named_in_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InstanceError) as error:
        server_of("s1", **fields)
    assert str(error.value).startswith(f"serving instance s1: {message}") and "\n" not in str(error.value)


def test_plain_data_comes_back_equal() -> None:
    for serving in (server_of("a"), server_of("b", retire_s=9.0, role="prefill", cache_tokens=5)):
        data = serving_instance_to_dict(serving)
        again = serving_instance_from_dict(data, "x")
        assert again == serving and hash(again) == hash(serving)
        assert dataclasses.replace(again, quality=0.5) != serving
    assert server_of("a") != "a"


def test_bad_plain_data_is_named() -> None:
    data = serving_instance_to_dict(server_of("a"))
    for broken, message in (
        ([], "f[0]: expected a table of fields, got []"),
        (data | {"colour": "red"}, "f[0]: field colour: unknown, expected name, device, model"),
        ({k: v for k, v in data.items() if k != "model"}, "f[0]: field model: missing"),
        (data | {"coefficients": "none"}, "f[0]: field coefficients: expected a list of numbers"),
        (data | {"kv_tokens": -5}, "f[0]: serving instance a: field kv_tokens: -5, expected an integer of at least 1"),
    ):
        with pytest.raises(InstanceError) as error:
            serving_instance_from_dict(broken, "f[0]")
        assert str(error.value).startswith(message)
