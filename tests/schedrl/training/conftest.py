from typing import Any

import pytest


@pytest.fixture
def tiny() -> dict[str, Any]:
    """A run of a second or two, with two sizes so that unequal instances share a batch."""
    return {
        "family": "jobshop",
        "seed": 3,
        "total_decisions": 6_144,
        "environments": 32,
        "group_size": 8,
        "instances": [
            {"generator": "uniform", "size": {"jobs": 6, "machines": 6}},
            {"generator": "uniform", "size": {"jobs": 8, "machines": 4}, "start": 0.3},
        ],
        "validation": {
            "every_decisions": 1_024,
            "count": 3,
            "instances": [{"generator": "uniform", "size": {"jobs": 6, "machines": 6}}],
        },
        "network": {"node_width": 8, "candidate_width": 16, "layers": 1},
        "ppo": {"rollout_steps": 16, "minibatch": 128, "epochs": 1, "group_normalised": True},
        "checkpoint_every_decisions": 1_024,
    }
