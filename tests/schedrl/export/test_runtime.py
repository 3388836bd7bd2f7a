"""A bundle decides as torch does, without torch."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from schedrl.arrays import F32, I32
from schedrl.envs.jobshop.family import FAMILY
from schedrl.envs.jobshop.generators import uniform
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.observation import static_graph
from schedrl.envs.jobshop.simulator import Simulator
from schedrl.errors import BundleError, ConfigError
from schedrl.export import load
from schedrl.export.runtime import BundlePolicy
from schedrl.graphs import DecisionBatch
from schedrl.policies.network import PolicyNetwork
from schedrl.policies.network_policy import NetworkPolicy
from schedrl.rollout import play

ROOT = Path(__file__).resolve().parents[3]
SIZES = ((2, 2), (3, 3), (6, 6), (10, 5), (8, 8), (15, 10), (20, 5), (4, 12), (12, 12), (30, 8))
BLOCKED = ("torch", "torch_geometric", "gymnasium", "stable_baselines3", "sb3_contrib", "onnx", "ortools", "pandas")


@pytest.fixture(scope="module")
def policy(bundle: Path) -> BundlePolicy:
    return load(bundle, family="jobshop")


def shops(seed: int, sizes: tuple[tuple[int, int], ...] = SIZES) -> list[JobShopInstance]:
    rng = np.random.default_rng(seed)
    return [uniform(rng, jobs=jobs, machines=machines) for jobs, machines in sizes]


def episodes(instances: list[JobShopInstance]) -> tuple[Simulator, DecisionBatch]:
    simulator = Simulator(instances, len(instances))
    return simulator, DecisionBatch.allocate(simulator.batch, simulator.slots, FAMILY.features)


def step(simulator: Simulator, action: I32) -> None:
    simulator.step(action, np.zeros(len(action), dtype=np.float32), np.zeros(len(action), dtype=np.bool_))


def makespans(policy: BundlePolicy, instances: list[JobShopInstance]) -> list[float]:
    simulator, _ = episodes(instances)
    policy.begin([static_graph(instance) for instance in instances])
    play(policy, FAMILY, simulator, rng=None)
    return [simulator.objective(row) for row in range(len(instances))]


def row_of(decision: DecisionBatch, row: int) -> DecisionBatch:
    part = slice(row, row + 1)
    return DecisionBatch(
        candidates=decision.candidates[part],
        candidate_features=decision.candidate_features[part],
        context=decision.context[part],
        count=decision.count[part],
    )


def test_a_thousand_decisions_equal_torch(network: PolicyNetwork, policy: BundlePolicy) -> None:
    instances = shops(1, SIZES * 3)
    graphs = [static_graph(instance) for instance in instances]
    reference = NetworkPolicy(network)
    reference.begin(graphs)
    policy.begin(graphs)
    simulator, decision = episodes(instances)
    decisions, slots_used, largest = 0, set[int](), 0.0
    while True:
        simulator.observe(decision)
        if not decision.count.any():
            break
        expected, found = reference.logits(decision).numpy(), policy.logits(decision)
        valid = decision.action_mask() > 0
        assert (np.isneginf(expected) == ~valid).all() and (np.isneginf(found) == ~valid).all()
        largest = max(largest, float(np.abs(expected[valid] - found[valid]).max()))
        action = policy.select(decision)
        assert action.dtype == np.int32
        np.testing.assert_array_equal(action, reference.select(decision, None))
        np.testing.assert_array_equal(action == -1, decision.count == 0)
        decisions += int(np.count_nonzero(decision.count))
        slots_used |= set(action.tolist())
        step(simulator, action)
    assert decisions >= 1000
    assert len(slots_used) > 5, "the network must prefer different slots for the comparison to mean anything"
    assert largest < 1e-4


def test_sampled_decisions_equal_torch_with_the_same_generator(network: PolicyNetwork, policy: BundlePolicy) -> None:
    instances = shops(2, ((6, 6), (9, 4)))
    graphs = [static_graph(instance) for instance in instances]
    reference = NetworkPolicy(network)
    reference.begin(graphs)
    policy.begin(graphs)
    simulator, decision = episodes(instances)
    simulator.observe(decision)
    ours, theirs = np.random.default_rng(5), np.random.default_rng(5)
    for _ in range(50):
        np.testing.assert_array_equal(policy.select(decision, ours), reference.select(decision, theirs))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_sampling_follows_the_softmax(
    policy: BundlePolicy, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    rows = 40_000
    logits = np.array([1.0, 0.0, -1.0, -np.inf], dtype=np.float32)
    decision = DecisionBatch.allocate(rows, 4, FAMILY.features)
    decision.count[:] = 3
    monkeypatch.setattr(policy, "logits", lambda decision: np.tile(logits, (rows, 1)))
    drawn = policy.select(decision, np.random.default_rng(0), temperature)
    weight = np.exp(logits / temperature)
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / rows, weight / weight.sum(), atol=0.01)


def test_lowest_slot_wins_among_equals(policy: BundlePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    logits: F32 = np.array([[1, 3, 3, 0], [2, 2, -np.inf, -np.inf], [-np.inf] * 4], dtype=np.float32)
    decision = DecisionBatch.allocate(3, 4, FAMILY.features)
    decision.count[:] = 4, 2, 0
    monkeypatch.setattr(policy, "logits", lambda decision: logits)
    assert policy.select(decision).tolist() == [1, 0, -1]


def test_batch_equals_single_rows(policy: BundlePolicy) -> None:
    instances = shops(3)
    graphs = [static_graph(instance) for instance in instances]
    policy.begin(graphs)
    simulator, decision = episodes(instances)
    single = policy.session()
    for _ in range(5):
        simulator.observe(decision)
        together, chosen = policy.logits(decision), policy.select(decision)
        for row, graph in enumerate(graphs):
            single.begin([graph])
            alone = row_of(decision, row)
            count = decision.count[row]
            np.testing.assert_allclose(single.logits(alone)[0, :count], together[row, :count], atol=1e-5)
            assert single.select(alone)[0] == chosen[row]
        step(simulator, chosen)


def test_rows_of_one_graph_are_encoded_once(policy: BundlePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (static_graph(instance) for instance in shops(4, ((6, 6), (3, 3))))
    encoded: list[int] = []
    monkeypatch.setattr(
        BundlePolicy,
        "encode",
        lambda self, graph, encode=BundlePolicy.encode: encoded.append(id(graph)) or encode(self, graph),
    )
    policy.begin([first, second, first, first])
    assert encoded == [id(first), id(second)]


def test_two_threads_share_one_bundle(policy: BundlePolicy) -> None:
    groups = [shops(seed, ((6, 6), (10, 5), (8, 8))) for seed in range(4)]
    expected = [makespans(policy.session(), group) for group in groups]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda group: makespans(policy.session(), group), groups))
    assert found == expected
    assert len({tuple(values) for values in expected}) == 4


def test_sessions_keep_their_own_episodes(policy: BundlePolicy) -> None:
    instances = shops(6, ((5, 5), (7, 3)))
    simulator, decision = episodes(instances)
    simulator.observe(decision)
    policy.begin([static_graph(instance) for instance in instances])
    before = policy.logits(decision)
    policy.session().begin([static_graph(shops(7, ((9, 9),))[0])])
    np.testing.assert_array_equal(policy.logits(decision), before)


def test_more_threads_give_the_same_decisions(policy: BundlePolicy, bundle: Path) -> None:
    assert makespans(load(bundle, threads=2), shops(8)) == makespans(policy.session(), shops(8))


def test_wrong_shapes_are_one_line(policy: BundlePolicy) -> None:
    (graph,) = (static_graph(instance) for instance in shops(9, ((3, 3),)))
    policy.begin([graph])
    with pytest.raises(BundleError, match=r"^decision: \(rows, .*\) \(2, 26, 14\), expected \(1, 26, 14\)$"):
        policy.logits(DecisionBatch.allocate(2, 3, FAMILY.features))
    with pytest.raises(ConfigError, match=r"^temperature: 0, expected above 0"):
        policy.select(DecisionBatch.allocate(1, 3, FAMILY.features), np.random.default_rng(0), 0)


# A plain import of the runtime and one decision per row, where nothing but numpy and onnxruntime exists.
_BARE = """
    data = np.load(sys.argv[2])
    parts = ("node_features", "edge_index", "edge_type", "edge_features")
    graphs = [StaticGraph(**{name: data[f"{name}{row}"] for name in parts}) for row in range(int(data["graphs"]))]
    names = ("candidates", "candidate_features", "context", "count")
    policy = load(sys.argv[1])
    policy.begin(graphs)
    print(policy.select(DecisionBatch(**{name: data[name] for name in names})).tolist())
"""
# Whole episodes on the real simulator, which needs numba.
_EPISODE = """
    from schedrl.envs.jobshop.family import FAMILY
    from schedrl.envs.jobshop.generators import uniform
    from schedrl.rollout import play
    instance = uniform(np.random.default_rng(11), jobs=6, machines=5)
    simulator = FAMILY.make_simulator([instance], 1)
    policy = load(sys.argv[1], family="jobshop")
    policy.begin([FAMILY.static_graph(instance)])
    play(policy, FAMILY, simulator, rng=None)
    print(simulator.objective(0))
"""


def run_without(blocked: tuple[str, ...], body: str, *arguments: Path) -> str:
    script = f"""
    import sys
    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in {blocked!r}:
                raise ModuleNotFoundError(f"blocked: {{name}}", name=name)
    sys.meta_path.insert(0, Blocker())
    import numpy as np
    from schedrl.export.runtime import load
    from schedrl.graphs import DecisionBatch, StaticGraph
    {body}
    assert not set(sys.modules) & set({blocked!r})
    """
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_decides_where_only_numpy_and_onnxruntime_are_installed(
    policy: BundlePolicy, bundle: Path, tmp_path: Path
) -> None:
    instances = shops(10)
    graphs = [static_graph(instance) for instance in instances]
    simulator, decision = episodes(instances)
    simulator.observe(decision)
    policy.begin(graphs)
    expected = policy.select(decision)
    arrays = {name: getattr(decision, name) for name in DecisionBatch.__slots__}
    for row, graph in enumerate(graphs):
        arrays |= {f"{name}{row}": getattr(graph, name) for name in type(graph).__slots__}
    np.savez(tmp_path / "inputs.npz", graphs=len(graphs), **arrays)
    bare = (*BLOCKED, "numba", "scipy", "matplotlib", "yaml", "pydantic", "typer", "rich")
    assert run_without(bare, _BARE, bundle, tmp_path / "inputs.npz") == str(expected.tolist())


def test_plays_the_simulator_without_torch_and_gymnasium(policy: BundlePolicy, bundle: Path) -> None:
    instance = uniform(np.random.default_rng(11), jobs=6, machines=5)
    assert run_without(BLOCKED, _EPISODE, bundle) == str(makespans(policy, [instance])[0])
