"""Our own files are read back equal, alone, by line and from folders; traces become instances on the default fleet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.envs.routing.formats import parse_instances, read_instances
from schedrl.envs.routing.generators import GENERATORS
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.errors import InstanceError


def instance(seed: int = 0, **options: object) -> RoutingInstance:
    return GENERATORS["mixed"](np.random.default_rng(seed), requests=12, fleet="random", **options)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_what_is_written_is_read_back(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("instances") / "a.json"
    path.write_text(instance(seed).to_json())
    assert list(read_instances(path)) == [instance(seed)]


def test_files_hold_one_instance_or_one_per_line(tmp_path: Path) -> None:
    three = [instance(seed) for seed in range(3)]
    (tmp_path / "b-10.jsonl").write_text("\n".join(item.to_json() for item in three[1:]) + "\n")
    (tmp_path / "b-2.json").write_text(three[0].to_json().replace(', "', ',\n"'))
    (tmp_path / "notes.txt").write_text("nothing")
    assert list(read_instances(tmp_path / "b-10.jsonl")) == three[1:]
    assert list(read_instances(tmp_path)) == three


def test_traces_are_put_on_the_default_fleet(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n")
    (found,) = read_instances(path)
    assert (found.name, found.prompt_tokens.tolist(), len(found.fleet)) == ("mine", [374], 8)
    assert {(serving.device, serving.model) for serving in found.fleet} == {("a100-sxm-80gb", "qwen2.5-7b")}
    path = tmp_path / "talk.jsonl"
    path.write_text('{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [0, 1]}\n')
    assert next(read_instances(path)).blocks.tolist() == [0]


GOOD = instance(3).to_json()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.json: empty, expected a trace"),
        ("{", "a.json:1: not valid JSON"),
        ("[1]", "a.json: field schema: expected 'schedrl/routing-instance/1', got None"),
        ('{"schema": "x"}', "a.json: field schema: expected 'schedrl/routing-instance/1', got 'x'"),
        ('{"schema": "schedrl/routing-instance/1"}', "a.json: field name: missing"),
        (GOOD[:-20], "a.json:1: not valid JSON"),
        (f"{GOOD}\n{GOOD[:-20]}\n", "a.json:2: not valid JSON"),
        (GOOD + "\n\n" + GOOD.replace('"arrival_s"', '"arrivals"'), "a.json:3: field arrivals: unknown"),
        ('{"timestamp": 0, "input_length": 60}', "a.json:1: field output_length: missing"),
        (
            '{"timestamp": 0, "input_length": 9000000, "output_length": 1, "hash_ids": []}',
            "a: field prompt_tokens: request 0 has 9000000 prompt and 1 output tokens, more than fit in the memory",
        ),
    ],
)
def test_broken_files_get_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InstanceError, match=message) as caught:
        list(read_instances(path))
    assert "\n" not in str(caught.value)


def test_folders_without_files_and_files_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(InstanceError, match=r"no instance file, expected at least one of \*\.json, \*\.jsonl, \*\.csv"):
        list(read_instances(tmp_path))
    (tmp_path / "a.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InstanceError, match=r"a\.json:1: not UTF-8 text"):
        list(read_instances(tmp_path))
    with pytest.raises(InstanceError, match="text: empty, expected an instance"):
        list(parse_instances("\n", source="text"))
