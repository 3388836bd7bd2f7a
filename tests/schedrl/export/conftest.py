"""One small network and its bundle for all tests here, as an export takes seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from schedrl.envs.jobshop.family import FAMILY
from schedrl.export.bundle import write_bundle
from schedrl.policies.network import NetworkConfig, PolicyNetwork


@pytest.fixture(scope="session")
def network() -> PolicyNetwork:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = PolicyNetwork(FAMILY.features, NetworkConfig(node_width=16, layers=2, candidate_width=24))
    # Fresh networks are nearly indifferent among candidates, and their norms are all alike.
    with torch.no_grad():
        network.score[1].weight.normal_(std=3.0)
        for convolution in network.convolutions:
            convolution.norm.weight.uniform_(0.5, 1.5)
            convolution.norm.bias.normal_()
    return network


@pytest.fixture(scope="session")
def bundle(network: PolicyNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "small.schedrl"
    return write_bundle(
        network, FAMILY, path, provenance={"seed": 0}, quality={"gap": 0.5}, simulator={"delay_factor": 0.75}
    )
