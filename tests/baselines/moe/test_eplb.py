from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from schedrl.baselines.moe.eplb import eplb_placement
from schedrl.devices.cluster import Cluster, ClusterNode, uniform_cluster
from schedrl.envs.moe.eplb import rebalance_experts
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.model import MoEModel

# The example of github.com/deepseek-ai/EPLB's README; its placements are in tests/envs/moe/test_eplb.py.
WEIGHT = [
    [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
    [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
]


def readme(groups: int = 4) -> ExpertPlacementInstance:
    return ExpertPlacementInstance(
        name="readme",
        model=MoEModel(name="readme", layers=2, experts=12, top_k=2, hidden=1000, intermediate=1000, groups=groups),
        cluster=uniform_cluster("h100-sxm", nodes=2, per_node=4),
        slots=np.full(8, 2, dtype=np.int32),
        counts=np.array([WEIGHT]),
        planned=1,
    )


@pytest.mark.parametrize(
    ("groups", "hierarchical", "played"), [(4, True, (4, 2)), (3, True, (1, 1)), (4, False, (1, 1))]
)
def test_plays_the_policy_that_fits(groups: int, hierarchical: bool, played: tuple[int, int]) -> None:
    placement = eplb_placement(readme(groups), np.array(WEIGHT, dtype=np.float64), hierarchical=hierarchical)
    assert placement.tolist() == rebalance_experts(WEIGHT, 16, *played, 8)[0].tolist()


def test_unequal_nodes_play_the_global_policy() -> None:
    instance = readme()
    node = instance.cluster.nodes[0]
    sizes = [ClusterNode(device=node.device, count=count, intra=node.intra, inter=node.inter) for count in (3, 5)]
    changed = dataclasses.replace(instance, cluster=Cluster(nodes=tuple(sizes)))
    placement = eplb_placement(changed, np.array(WEIGHT, dtype=np.float64), hierarchical=True)
    assert placement.tolist() == rebalance_experts(WEIGHT, 16, 1, 1, 8)[0].tolist()


def test_unequal_slots_fill_to_their_limits() -> None:
    # 8 on the first device with its only slot, 6 and 4 on the second, then 3 joins the lightest with room.
    instance = dataclasses.replace(
        readme(),
        model=MoEModel(name="four", layers=1, experts=4, top_k=1, hidden=1000, intermediate=1000),
        cluster=uniform_cluster("h100-sxm", nodes=1, per_node=2),
        slots=np.array([1, 3], dtype=np.int32),
        counts=np.array([[[3, 8, 4, 6]]]),
    )
    assert eplb_placement(instance, np.array([[3.0, 8.0, 4.0, 6.0]]), hierarchical=False).tolist() == [[1, 3, 2, 0]]


def test_unequal_slots_hold_every_expert_and_replicate_the_hottest() -> None:
    instance = dataclasses.replace(readme(), slots=np.array([2] * 7 + [3], dtype=np.int32))
    placement = eplb_placement(instance, np.array(WEIGHT, dtype=np.float64), hierarchical=False)
    # Five spare slots in layer 0: 183, 165, 132, 104 and the next largest share, 183 / 2.
    assert np.bincount(placement[0], minlength=12).tolist() == [1, 2, 1, 1, 2, 2, 1, 1, 1, 1, 3, 1]
    assert all(set(row.tolist()) == set(range(12)) for row in placement)
