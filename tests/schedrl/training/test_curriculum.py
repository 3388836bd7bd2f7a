import numpy as np
import pytest

from schedrl.errors import ConfigError
from schedrl.families import get_family
from schedrl.training.curriculum import Curriculum, InstanceSet

SMALL = InstanceSet(generator="uniform", size={"jobs": 3, "machines": 2}, end=0.5)
LARGE = InstanceSet(generator="uniform", size={"jobs": 5, "machines": 4}, start=0.5)


def test_rows_of_a_group_see_the_same_sequence() -> None:
    curriculum = Curriculum(get_family("jobshop"), [SMALL], rows=4, group=2)
    rng = np.random.default_rng(0)
    first = [curriculum.draw(0, rng) for _ in range(3)]
    other_group = [curriculum.draw(2, rng) for _ in range(3)]
    second = [curriculum.draw(1, rng) for _ in range(3)]
    assert all(a is b for a, b in zip(first, second, strict=True))
    assert all(a != b for a, b in zip(first, other_group, strict=True))


def test_sizes_follow_progress() -> None:
    curriculum = Curriculum(get_family("jobshop"), [SMALL, LARGE], rows=1, group=1)
    rng = np.random.default_rng(0)
    assert {curriculum.draw(0, rng).size_label for _ in range(20)} == {"3x2"}
    curriculum.progress = 0.75
    assert {curriculum.draw(0, rng).size_label for _ in range(20)} == {"5x4"}


def test_snapshot_continues_the_sequence() -> None:
    curriculum = Curriculum(get_family("jobshop"), [SMALL], rows=2, group=2)
    rng = np.random.default_rng(0)
    ahead = [curriculum.draw(0, rng) for _ in range(3)]
    state = curriculum.snapshot()
    other = Curriculum(get_family("jobshop"), [SMALL], rows=2, group=2)
    other.restore(state)
    assert [other.draw(1, rng) for _ in range(3)] == ahead


def test_errors() -> None:
    family = get_family("jobshop")
    with pytest.raises(ConfigError, match="expected at least one"):
        Curriculum(family, [], rows=2, group=2)
    with pytest.raises(ConfigError, match="does not divide"):
        Curriculum(family, [SMALL], rows=3, group=2)
    with pytest.raises(ConfigError, match=r"instances\[0\]\.generator: 'nope'"):
        Curriculum(family, [InstanceSet(generator="nope", size={})], rows=2, group=2)
