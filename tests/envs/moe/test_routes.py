from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from schedrl.envs.moe.routes import parse_routes, read_routes, repetition, route_counts
from schedrl.errors import ConfigError, InstanceError

TEXT = "row,e0,e1\n0,0,1\n1,0,2\n2,2,3\n3,1,0\n4,1,3\n"
NEEDS_DATA = pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no routes to read")


def test_routes_are_counted_by_windows_of_tokens() -> None:
    routes = parse_routes(TEXT, source="t", experts=4)
    assert routes.experts.tolist() == [[0, 1], [0, 2], [2, 3], [1, 0], [1, 3]]
    counts = route_counts(routes, experts=4, tokens_per_window=2)  # the fifth token fills no window
    assert counts.tolist() == [[[2, 1, 1, 0]], [[1, 1, 1, 1]]]
    assert counts.dtype == np.int64


def test_repetition_by_hand() -> None:
    found = repetition(parse_routes(TEXT, source="t"), experts=4)
    assert found.first == 2 / 4  # tokens 1 and 4
    assert found.first_or_second == 3 / 4  # all but token 3: {2, 3} then {1, 0}
    assert found.random_first == 0.25


def test_random_routes_repeat_as_often_as_the_mixtral_paper_says() -> None:
    found = repetition(parse_routes(TEXT, source="t"), experts=8)
    assert found.random_first == pytest.approx(0.125)
    assert found.random_first_or_second == pytest.approx(0.464, abs=5e-4)  # Table 5: 46.4 %
    rng = np.random.default_rng(0)
    rows = (",".join(map(str, [t, *rng.permutation(8)[:2]])) for t in range(20000))
    drawn = repetition(parse_routes("row,e0,e1\n" + "\n".join(rows), source="t"), experts=8)
    assert drawn.first == pytest.approx(drawn.random_first, abs=0.01)
    assert drawn.first_or_second == pytest.approx(drawn.random_first_or_second, abs=0.015)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "t:1: header '', expected row,e0,e1,..."),
        ("row\n0\n", "t:1: header 'row'"),
        ("row,e1\n0,1\n", "t:1: header"),
        ("row,e0\n", "t: no tokens"),
        ("row,e0,e1\n0,1,2\n1,1\n", "t:3: 2 fields, expected 3"),
        ("row,e0,e1\n0,1,4\n", "t:2: field e1: '4', expected an expert from 0 to 3"),
        ("row,e0,e1\n0,nan,1\n", "t:2: field e0: 'nan', expected an expert"),
        ("row,e0,e1\n0,-1,1\n", "t:2: field e0: '-1'"),
        ("row,e0,e1\n0,1,1\n", "t:2: field e1: expert 1 twice in one token"),
    ],
)
def test_broken_routes_are_named(text: str, problem: str) -> None:
    with pytest.raises(InstanceError) as caught:
        parse_routes(text, source="t", experts=4)
    assert str(caught.value).startswith(problem)


def test_impossible_questions_are_refused(tmp_path: Path) -> None:
    routes = parse_routes(TEXT, source="t")
    with pytest.raises(ConfigError, match="tokens_per_window: 0"):
        route_counts(routes, experts=4, tokens_per_window=0)
    with pytest.raises(InstanceError, match="5 tokens, expected at least the 6 of a window"):
        route_counts(routes, experts=4, tokens_per_window=6)
    with pytest.raises(InstanceError, match="expert 3 of 3"):
        route_counts(routes, experts=3, tokens_per_window=2)
    with pytest.raises(InstanceError, match="1 tokens"):
        repetition(parse_routes(TEXT[:16], source="t"), experts=4)
    with pytest.raises(InstanceError, match="cannot be read: No such file"):
        read_routes(tmp_path / "none.csv")


@NEEDS_DATA
@pytest.mark.parametrize(
    ("name", "tokens", "top_k", "experts"), [("olmoe-1b-7b", 4471, 8, 64), ("qwen1.5-moe-a2.7b", 2434, 4, 60)]
)
def test_recorded_routes(name: str, tokens: int, top_k: int, experts: int) -> None:
    path = Path(os.environ["SCHEDRL_DATA"], "moe", "routes", f"{name}_layer0_gsm8k_topk.csv")
    routes = read_routes(path, experts=experts)
    assert routes.experts.shape == (tokens, top_k)
    counts = route_counts(routes, experts=experts, tokens_per_window=500)
    assert counts.shape == (tokens // 500, 1, experts)
    assert (counts.sum(axis=2) == 500 * top_k).all()
    found = repetition(routes, experts=experts)
    assert 0 < found.random_first < found.first < found.first_or_second < 1
