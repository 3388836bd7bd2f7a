from __future__ import annotations

from typing import Any

import pytest

from schedrl.envs.moe.model import get_model, load_models, model_from_dict
from schedrl.errors import ConfigError, UnknownNameError

SMALL: dict[str, Any] = {"name": "m", "layers": 2, "experts": 4, "top_k": 2, "hidden": 8, "intermediate": 16}


@pytest.mark.parametrize(
    ("name", "layers", "experts", "top_k", "million_weights"),
    [
        ("mixtral-8x7b", 32, 8, 2, 176.16),
        ("mixtral-8x22b", 56, 8, 2, 301.99),
        ("deepseek-v2-lite", 26, 64, 6, 8.65),
        ("deepseek-v3", 58, 256, 8, 44.04),
        ("qwen3-30b-a3b", 48, 128, 8, 4.72),
        ("qwen3-235b-a22b", 94, 128, 8, 18.87),
        ("olmoe-1b-7b", 16, 64, 8, 6.29),
        ("qwen1.5-moe-a2.7b", 24, 60, 4, 8.65),
        ("gpt-oss-20b", 24, 32, 4, 24.88),
        ("gpt-oss-120b", 36, 128, 4, 24.88),
        ("kimi-k2", 60, 384, 8, 44.04),
    ],
)
def test_catalogue_has_the_published_sizes(
    name: str, layers: int, experts: int, top_k: int, million_weights: float
) -> None:
    model = get_model(name)
    assert (model.layers, model.experts, model.top_k) == (layers, experts, top_k)
    assert model.expert_bytes / model.bytes_per_weight / 1e6 == pytest.approx(million_weights, abs=0.005)
    assert model.source


def test_every_model_survives_plain_data() -> None:
    for model in load_models().values():
        assert model_from_dict(model.to_dict()) == model


def test_an_unknown_name_lists_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="unknown model 'deepseek-v4'; closest: deepseek-v3"):
        get_model("deepseek-v4")
    with pytest.raises(UnknownNameError, match="choose from mixtral-8x7b"):
        get_model("&")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "model m: field layers: 0, expected an integer of at least 1"),
        ({"experts": 2.5}, "model m: field experts: 2.5, expected an integer of at least 1"),
        ({"top_k": True}, "model m: field top_k: True, expected an integer of at least 1"),
        ({"hidden": "8"}, "model m: field hidden: '8', expected an integer of at least 1"),
        ({"intermediate": -1}, "model m: field intermediate: -1, expected an integer of at least 1"),
        ({"groups": 3}, "model m: field groups: 3 do not divide 4 experts"),
        ({"top_k": 5}, "model m: field top_k: 5 of 4 experts"),
        ({"first_layer": -1}, "model m: field first_layer: -1, expected an integer of at least 0"),
        ({"bytes_per_weight": 0}, "model m: field bytes_per_weight: 0, expected 0 to 8"),
        ({"bytes_per_weight": float("nan")}, "model m: field bytes_per_weight: nan, expected 0 to 8"),
        ({"colour": 1}, "model: field colour: unknown, expected bytes_per_weight, experts"),
    ],
)
def test_bad_fields_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model_from_dict(SMALL | change)


def test_missing_fields_are_refused() -> None:
    for field in SMALL:
        with pytest.raises(ConfigError, match=f"^file:3: field {field}: missing"):
            model_from_dict({key: value for key, value in SMALL.items() if key != field}, "file:3")
    with pytest.raises(ConfigError, match="model: expected a table of fields, got 7"):
        model_from_dict(7)
