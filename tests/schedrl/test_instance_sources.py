import numpy as np
import pytest

from schedrl.errors import ConfigError
from schedrl.families import get_family
from schedrl.instance_sources import FixedInstances, GeneratedInstances


def test_fixed_instances_come_in_turn() -> None:
    family = get_family("jobshop")
    rng = np.random.default_rng(0)
    instances = [family.generators["uniform"](rng, jobs=2, machines=size) for size in (2, 3)]
    source = FixedInstances(instances)
    assert [source.draw(0, rng) for _ in range(3)] == [instances[0], instances[1], instances[0]]
    with pytest.raises(ConfigError, match="expected at least one instance"):
        FixedInstances([])


def test_generated_instances_follow_the_seed() -> None:
    source = GeneratedInstances(get_family("jobshop"), "uniform", {"jobs": 3, "machines": 2})
    first = source.draw(0, np.random.default_rng(1))
    assert first == source.draw(0, np.random.default_rng(1)) != source.draw(0, np.random.default_rng(2))
    with pytest.raises(ConfigError, match="'nope', expected one of"):
        GeneratedInstances(get_family("jobshop"), "nope", {})
