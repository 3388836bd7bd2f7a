"""Generators keep to their ranges and seeds; the reader takes published sets and names what is wrong in others."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schedrl.envs.jobshop.single_machine_generators import (
    due_date_classes,
    normal_single_machine,
    read_single_machine,
    uniform_single_machine,
)
from schedrl.errors import ConfigError, InstanceError

GENERATORS: list[Callable[..., Any]] = [uniform_single_machine, normal_single_machine]


def test_classes_in_the_order_of_the_files() -> None:
    classes = due_date_classes()
    assert len(classes) == 20
    assert classes[:5] == ((0.2, 0.2), (0.2, 0.4), (0.2, 0.6), (0.2, 0.8), (0.4, 0.2))
    assert classes[-1] == (1.0, 0.8)


@pytest.mark.parametrize("generate", GENERATORS)
def test_same_seed_same_arrays(generate: Callable[..., Any]) -> None:
    first, again, other = (
        generate(np.random.default_rng(seed), jobs=9, relative_range=0.4, tardiness_factor=0.6) for seed in (1, 1, 2)
    )
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert (first[0] != other[0]).any()
    assert [array.dtype for array in first] == [np.int64, np.int64]


@pytest.mark.parametrize("generate", GENERATORS)
@pytest.mark.parametrize(("spread", "factor"), due_date_classes())
def test_due_dates_fill_their_interval(generate: Callable[..., Any], spread: float, factor: float) -> None:
    p, d = generate(np.random.default_rng(0), jobs=4000, relative_range=spread, tardiness_factor=factor)
    work = p.sum()
    first, last = work * (1 - factor - spread / 2), work * (1 - factor + spread / 2)
    assert first - 1e-3 <= d.min() <= first + 0.01 * (last - first)
    assert last - 0.01 * (last - first) <= d.max() <= last + 1e-3


def test_processing_times() -> None:
    p, _ = uniform_single_machine(np.random.default_rng(0), jobs=20_000, relative_range=0.2, tardiness_factor=0.2)
    assert (p.min(), p.max()) == (1, 100)
    assert abs(p.mean() - 50.5) < 1.0
    p, _ = normal_single_machine(np.random.default_rng(0), jobs=20_000, relative_range=0.2, tardiness_factor=0.2)
    assert p.min() >= 1
    assert abs(p.mean() - 60.0) < 0.5
    assert abs(p.std() - 20.0) < 0.5
    p, _ = normal_single_machine(np.random.default_rng(0), jobs=50, relative_range=0.2, tardiness_factor=0.2, mean=-9.0)
    assert (p[p < 1].size, p.min()) == (0, 1)


def test_ends_that_are_integers_are_drawn() -> None:
    # P (1 - 0.8 - 0.1) = 1 and P (1 - 0.8 + 0.1) = 3 for P = 10; the latter is 2.999999999999999 in floating point.
    rng, seen = np.random.default_rng(0), set[int]()
    for _ in range(50):
        p, d = uniform_single_machine(rng, jobs=10, relative_range=0.2, tardiness_factor=0.8, low=1, high=1)
        assert p.sum() == 10
        seen |= set(d.tolist())
    assert seen == {1, 2, 3}


def test_range_without_an_integer() -> None:
    _, d = uniform_single_machine(np.random.default_rng(0), jobs=3, relative_range=0, tardiness_factor=0.5, high=1)
    assert d.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": 0}, "option jobs: 0, expected at least 1"),
        ({"relative_range": -0.1}, "option relative_range: -0.1, expected 0 or more"),
        ({"relative_range": float("nan")}, "option relative_range: nan, expected 0 or more"),
        ({"tardiness_factor": 1.1}, "option tardiness_factor: 1.1, expected 0 to 1"),
    ],
)
@pytest.mark.parametrize("generate", GENERATORS)
def test_bad_options(generate: Callable[..., Any], options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        generate(np.random.default_rng(0), **{"jobs": 2, "relative_range": 0.2, "tardiness_factor": 0.2, **options})


def test_bad_distributions() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="options low and high: 3 and 2, expected 0 <= low <= high"):
        uniform_single_machine(rng, jobs=2, relative_range=0.2, tardiness_factor=0.2, low=3, high=2)
    with pytest.raises(ConfigError, match=r"options mean and deviation: 1\.0 and -1\.0, expected finite and deviation"):
        normal_single_machine(rng, jobs=2, relative_range=0.2, tardiness_factor=0.2, mean=1.0, deviation=-1.0)


def write(folder: Path, text: str) -> Path:
    path = folder / "set.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_set_is_read(tmp_path: Path) -> None:
    text = "# id n RDD TF optimum | p | d\n\n7 2 0.4 0.8 12 | 5 -3 | -1 9 # second\n8 1 1.0 0.2 0 | 4 | 4\n"
    first, second = read_single_machine(write(tmp_path, text))
    assert (first.number, first.relative_range, first.tardiness_factor, first.optimum) == (7, 0.4, 0.8, 12)
    assert (first.p.tolist(), first.d.tolist()) == ([5, -3], [-1, 9])
    assert (second.number, second.relative_range, second.optimum) == (8, 1.0, 0)
    assert first.p.dtype == first.d.dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        first.p[0] = 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "set.txt: no instance, expected lines 'id n RDD TF optimum"),
        ("0 1 0.2 0.2 3 | 1", "set.txt:1: 2 parts between |, expected 3"),
        ("0 1 0.2 3 | 1 | 1", "set.txt:1: field header: 4 values, expected 5: 'id n RDD TF optimum'"),
        ("0 x 0.2 0.2 3 | 1 | 1", "set.txt:1: field n: 'x', expected an integer of at most 18 digits"),
        ("0 0 0.2 0.2 3 | | ", "set.txt:1: field n: 0, expected at least 1"),
        ("0 1 0.2 0.2 -3 | 1 | 1", "set.txt:1: field optimum: -3, expected at least 0"),
        ("0 1 nan 0.2 3 | 1 | 1", "set.txt:1: field RDD: 'nan', expected a number such as 0.2"),
        ("0 1 0.2 -1 3 | 1 | 1", "set.txt:1: field TF: '-1', expected a number such as 0.2"),
        ("0 2 0.2 0.2 3 | 1 | 1 2", "set.txt:1: field p: 1 values, expected n = 2"),
        ("0 2 0.2 0.2 3 | 1 2 | 1 2.5", "set.txt:1: field d_2: '2.5', expected an integer of at most 18 digits"),
        ("0 1 0.2 0.2 3 | 99999999999999999 | 1", "set.txt:1: field p: absolute values sum to more than 45035"),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InstanceError) as caught:
        read_single_machine(write(tmp_path, line))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InstanceError, match=r"absent\.txt: cannot be read: No such file"):
        read_single_machine(tmp_path / "absent.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InstanceError, match=r"binary\.txt: cannot be read: not UTF-8 text"):
        read_single_machine(tmp_path / "binary.txt")


@pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no published sets to read")
def test_published_sets() -> None:
    folder = Path(os.environ["SCHEDRL_DATA"], "jobshop", "smtt")
    for name, jobs, count in (("n20_uniform_800", 20, 800), ("n20_normal_800", 20, 800), ("n100_200", 100, 200)):
        problems = read_single_machine(folder / f"{name}.txt")
        assert len(problems) == count
        assert {len(problem.p) for problem in problems} == {jobs}
        classes = [(problem.relative_range, problem.tardiness_factor) for problem in problems]
        assert tuple(dict.fromkeys(classes)) == due_date_classes()
        assert sum((problem.p <= 0).sum() for problem in problems) == (134 if "normal" in name else 0)
