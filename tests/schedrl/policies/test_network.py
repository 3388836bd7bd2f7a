from itertools import pairwise

import numpy as np
import pytest
import torch

from schedrl.envs.jobshop.family import FAMILY
from schedrl.envs.jobshop.generators import uniform
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.graphs import DecisionBatch
from schedrl.policies.encoding import encode_graphs
from schedrl.policies.network import NetworkConfig, PolicyNetwork
from schedrl.policies.network_policy import NetworkPolicy
from schedrl.rollout import play


@pytest.fixture(scope="module")
def network() -> PolicyNetwork:
    torch.manual_seed(0)
    return PolicyNetwork(FAMILY.features, NetworkConfig(node_width=16, candidate_width=16, layers=2)).eval()


def _instances() -> list[JobShopInstance]:
    rng = np.random.default_rng(0)
    return [uniform(rng, jobs=jobs, machines=machines) for jobs, machines in ((3, 2), (6, 5), (1, 1), (4, 7))]


def test_graphs_do_not_see_each_other(network: PolicyNetwork) -> None:
    graphs = [FAMILY.static_graph(instance) for instance in _instances()]
    together, offset = encode_graphs(network, graphs)
    for number, graph in enumerate(graphs):
        alone, _ = encode_graphs(network, [graph])
        start = int(offset[number])
        torch.testing.assert_close(together.nodes[start : start + len(graph.node_features)], alone.nodes)
        torch.testing.assert_close(together.graphs[number], alone.graphs[0])


def test_every_part_of_the_input_matters(network: PolicyNetwork) -> None:
    graph = FAMILY.static_graph(_instances()[1])
    base, _ = encode_graphs(network, [graph])
    import dataclasses

    for kind in range(4):
        kept = graph.edge_type != kind
        cut = dataclasses.replace(graph, edge_index=graph.edge_index[:, kept], edge_type=graph.edge_type[kept])
        changed, _ = encode_graphs(network, [cut])
        assert not torch.allclose(changed.nodes, base.nodes), FAMILY.features.edge_types[kind]


def test_batch_of_unequal_sizes_equals_singles(network: PolicyNetwork) -> None:
    instances = _instances()
    policy = NetworkPolicy(network)

    def objectives(batch: list[JobShopInstance]) -> list[float]:
        simulator = FAMILY.make_simulator(batch, len(batch))
        policy.begin([FAMILY.static_graph(instance) for instance in batch])
        play(policy, FAMILY, simulator, rng=None)
        return [simulator.objective(row) for row in range(len(batch))]

    assert objectives(instances) == [objectives([instance])[0] for instance in instances]


def test_temperature_leads_from_greedy_to_even_sampling(network: PolicyNetwork) -> None:
    instance = uniform(np.random.default_rng(1), jobs=8, machines=2)
    simulator = FAMILY.make_simulator([instance], 400, generation="semi-active")
    decision = DecisionBatch.allocate(400, simulator.slots, FAMILY.features)
    simulator.observe(decision)
    policy = NetworkPolicy(network)
    policy.begin([FAMILY.static_graph(instance)] * 400)
    rng = np.random.default_rng(0)
    assert np.array_equal(policy.select(decision, rng, temperature=1e-6), policy.select(decision))
    counts = np.bincount(policy.select(decision, rng, temperature=1e6), minlength=8)
    assert counts.min() > 25, "50 of 400 expected in each of 8 slots"


def test_candidate_order_does_not_matter(network: PolicyNetwork) -> None:
    instance = uniform(np.random.default_rng(1), jobs=8, machines=2)
    simulator = FAMILY.make_simulator([instance], 1, generation="semi-active")
    decision = DecisionBatch.allocate(1, simulator.slots, FAMILY.features)
    simulator.observe(decision)
    policy = NetworkPolicy(network)
    policy.begin([FAMILY.static_graph(instance)])
    logits = policy.logits(decision)[0]
    order = np.random.default_rng(0).permutation(8)
    decision.candidates[0] = decision.candidates[0][order]
    decision.candidate_features[0] = decision.candidate_features[0][order]
    torch.testing.assert_close(policy.logits(decision)[0], logits[torch.from_numpy(order)])


def test_parameters_do_not_depend_on_instances() -> None:
    sizes = [
        sum(weights.numel() for weights in PolicyNetwork(FAMILY.features, NetworkConfig(node_width=width)).parameters())
        for width in (8, 16, 32)
    ]
    assert all(small < large for small, large in pairwise(sizes))
