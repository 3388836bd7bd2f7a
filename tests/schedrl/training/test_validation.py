import math

import numpy as np
import pytest
import torch

from schedrl.families import get_family
from schedrl.policies.network import NetworkConfig, PolicyNetwork
from schedrl.policies.network_policy import NetworkPolicy
from schedrl.rollout import PolicyScheduler
from schedrl.schedulers import get_scheduler
from schedrl.training.config import ValidationConfig
from schedrl.training.curriculum import InstanceSet
from schedrl.training.validation import ValidationSuite

SETS = (
    InstanceSet(generator="uniform", size={"jobs": 6, "machines": 4}),
    InstanceSet(generator="uniform", size={"jobs": 5, "machines": 5}),
)


@pytest.mark.parametrize("reference", ["jobshop/spt-twkr", None])
def test_gap_is_the_mean_ratio_to_the_reference(reference: str | None) -> None:
    family = get_family("jobshop")
    torch.manual_seed(0)
    network = PolicyNetwork(family.features, NetworkConfig(node_width=8, candidate_width=8, layers=1))
    suite = ValidationSuite(family, ValidationConfig(instances=SETS, count=3, seed=5, reference=reference), {})
    gaps = suite.gaps(NetworkPolicy(network))
    rng = np.random.default_rng(5)
    scheduler = PolicyScheduler(
        family, lambda: NetworkPolicy(network), lambda policy, instances, batch: family.make_simulator(instances, batch)
    )
    for label, item in zip(gaps, SETS, strict=True):
        ratios = []
        for _ in range(3):
            instance = family.generators["uniform"](rng, **item.size)
            ours = scheduler.schedule(instance, time_limit_s=math.inf, rng=rng).objective
            if reference is None:
                theirs = family.bounds(instance)[0].value
            else:
                theirs = get_scheduler(reference).make().schedule(instance, time_limit_s=math.inf, rng=rng).objective
            assert ours is not None and theirs is not None
            ratios.append(ours / theirs - 1)
        assert gaps[label] == pytest.approx(np.mean(ratios))
    assert list(gaps) == ["uniform jobs=6 machines=4", "uniform jobs=5 machines=5"]
