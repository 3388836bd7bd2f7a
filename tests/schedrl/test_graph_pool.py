import numpy as np
import pytest

from schedrl.envs.jobshop.generators import uniform
from schedrl.envs.jobshop.observation import static_graph
from schedrl.graph_pool import GraphPool


def test_numbers_are_stable_and_the_oldest_go() -> None:
    rng = np.random.default_rng(0)
    instances = [uniform(rng, jobs=2, machines=2) for _ in range(5)]
    pool = GraphPool(static_graph, capacity=3)
    assert [pool.number(instance) for instance in instances[:3]] == [0, 1, 2]
    assert pool.number(instances[1]) == 1
    assert [pool.number(instance) for instance in instances[3:]] == [3, 4]
    assert len(pool.graphs([2, 3, 4])) == 3
    with pytest.raises(KeyError):
        pool.graphs([1])
    assert pool.number(instances[0]) == 5, "a forgotten instance comes back under a new number"


def test_snapshot_restores_numbers() -> None:
    rng = np.random.default_rng(0)
    instances = [uniform(rng, jobs=2, machines=2) for _ in range(3)]
    pool, other = GraphPool(static_graph, capacity=2), GraphPool(static_graph, capacity=2)
    for instance in instances:
        pool.number(instance)
    other.restore(pool.snapshot())
    assert [other.number(instance) for instance in instances[1:]] == [1, 2]
    assert other.number(uniform(rng, jobs=2, machines=2)) == 3
