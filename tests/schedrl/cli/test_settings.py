"""``--set name=value``: declared types, and errors that name them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

from schedrl.cli.settings import convert, keyword_values, parameters_of, plain_values
from schedrl.errors import ConfigError


@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (int, "12", 12),
        (float, "1e-3", 0.001),
        (bool, "true", True),
        (bool, "False", False),
        (str, "12", "12"),
        (int | None, "none", None),
        (int | str, "x", "x"),
        (Literal["a", "b"], "b", "b"),
        (tuple[int, ...], "1,2,3", (1, 2, 3)),
        (tuple[int, float], "(1, 2)", (1, 2.0)),
        (list[str], "[a,b]", ["a", "b"]),
        (dict[str, int], "{a: 1}", {"a": 1}),
    ],
)
def test_convert_reads_declared_types(hint: Any, text: str, value: object) -> None:
    result = convert(hint, text, "--set x")
    assert result == value and type(result) is type(value)


@pytest.mark.parametrize(
    ("hint", "text", "expected"),
    [
        (int, "1.5", "an integer"),
        (float, "fast", "a number"),
        (bool, "1", "true or false"),
        (Literal["a", "b"], "c", "one of a, b"),
        (tuple[int, int], "1,2,3", "tuple"),
    ],
)
def test_convert_refuses_other_types(hint: Any, text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=f"--set x: '{text}' is not .*{expected}"):
        convert(hint, text, "--set x")


def test_keyword_values_follow_the_signature() -> None:
    def make(rng: np.random.Generator, *, jobs: int, low: float = 1.0) -> None: ...

    parameters = parameters_of(make)
    assert [parameter[0] for parameter in parameters] == ["jobs", "low"]
    assert keyword_values(["jobs=3", "low=0.5"], parameters, "generator make") == {"jobs": 3, "low": 0.5}


def test_plain_values_are_yaml() -> None:
    assert plain_values(["seed=3", "ppo.clip=0.1", "device=cuda"]) == {"seed": 3, "ppo.clip": 0.1, "device": "cuda"}
    with pytest.raises(ConfigError, match="--set seed: '\\[' is not a YAML value"):
        plain_values(["seed=["])
