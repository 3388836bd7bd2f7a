from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from small_dags import PAIR, graph, soc
from strategies import instances

from schedrl.devices import Device
from schedrl.envs.socdag.generators import topcuoglu
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.observation import FEATURES, static_graph
from schedrl.envs.socdag.simulator import Mode, Simulator
from schedrl.envs.socdag.workflows import agentic
from schedrl.graphs import DecisionBatch, Feature

CANDIDATE = {feature.name: column for column, feature in enumerate(FEATURES.candidate)}
CONTEXT = {feature.name: column for column, feature in enumerate(FEATURES.context)}
NODE = {feature.name: column for column, feature in enumerate(FEATURES.node)}
SEEDS = st.integers(0, 2**32 - 1)
OPTIONS = st.fixed_dictionaries(
    {
        "window": st.integers(1, 8),
        "wait": st.booleans(),
        "dispatch": st.sampled_from(["queue", "idle"]),
        "dvfs": st.booleans(),
    }
)


@st.composite
def worlds(draw: st.DrawFn, *, noise: bool = True, deadlines: bool = True) -> SocDagInstance:
    """Draw an instance with everything that online mode supports."""
    instance = draw(
        instances(max_tasks=6, jobs=3, noise=noise, deadlines=deadlines, capacity=True, memory=True, contention=True)
    )
    weights = draw(st.sampled_from([(1, 0, 0), (0, 1, 0), (1, 2, 3)]))
    cap = draw(st.integers(0, 2))
    return dataclasses.replace(instance, admission_cap=cap, preference=np.array(weights, dtype=np.float64))


def assert_within(array: np.ndarray, features: tuple[Feature, ...]) -> None:
    assert np.isfinite(array).all()
    for column, feature in enumerate(features):
        values = array[..., column]
        assert feature.low <= values.min(initial=feature.low), feature.name
        assert values.max(initial=feature.high) <= feature.high, feature.name


def observed(simulator: Simulator) -> DecisionBatch:
    decision = DecisionBatch.allocate(simulator.batch, simulator.slots, FEATURES)
    simulator.observe(decision)
    return decision


def advance(simulator: Simulator, action: int) -> None:
    simulator.step(
        np.full(simulator.batch, action, dtype=np.int32),
        np.zeros(simulator.batch, dtype=np.float32),
        np.zeros(simulator.batch, dtype=np.bool_),
    )


def assert_same(first: DecisionBatch, second: DecisionBatch) -> None:
    np.testing.assert_array_equal(first.count, second.count)
    np.testing.assert_array_equal(first.candidates, second.candidates)
    np.testing.assert_array_equal(first.candidate_features, second.candidate_features)
    np.testing.assert_array_equal(first.context, second.context)


@given(worlds(), st.sampled_from(["online", "plan"]), OPTIONS, SEEDS)
def test_features_stay_within_the_bounds_of_their_table(
    instance: SocDagInstance, mode: Mode, options: dict[str, int], seed: int
) -> None:
    if mode == "plan":
        instance = dataclasses.replace(instance, noise_sigma=0.0, admission_cap=0)
    simulator = Simulator([instance], 1, mode=mode, **options)  # type: ignore[arg-type]
    rows, rng = len(instance.tables.duration), np.random.default_rng(seed)
    while not simulator.finished(0):
        decision = observed(simulator)
        count = int(decision.count[0])
        assert_within(decision.candidate_features[:, :count], FEATURES.candidate)
        assert_within(decision.context, FEATURES.context)
        tasks, devices = decision.candidates[0, :count].T
        waits = decision.candidate_features[0, :count, CANDIDATE["wait"]] > 0
        assert waits.sum() <= 1
        assert (tasks[waits] == rows + instance.devices).all()
        assert (devices[waits] == rows + instance.devices).all()
        assert np.isfinite(instance.tables.duration[tasks[~waits], devices[~waits] - rows]).all()
        advance(simulator, int(rng.integers(count)))


@given(worlds(), OPTIONS, SEEDS, SEEDS)
def test_other_noise_is_invisible_until_a_task_ends(
    instance: SocDagInstance, options: dict[str, int], draws: int, seed: int
) -> None:
    noise = np.random.default_rng(draws).standard_normal(instance.tasks)
    twin = dataclasses.replace(instance, noise=noise)
    pair = [Simulator([each], 1, **options) for each in (instance, twin)]  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    while not any(simulator.state.finished[0] for simulator in pair):
        first, second = map(observed, pair)
        assert_same(first, second)
        action = int(rng.integers(first.count[0]))
        for simulator in pair:
            advance(simulator, action)


@given(worlds(), OPTIONS, SEEDS, st.integers(1, 20))
def test_the_length_of_tasks_that_have_not_ended_is_never_seen(
    instance: SocDagInstance, options: dict[str, int], seed: int, stop: int
) -> None:
    """Play some decisions, then again with every task longer that had not ended by the last of them."""
    simulator, rng = Simulator([instance], 1, **options), np.random.default_rng(seed)  # type: ignore[arg-type]
    seen, actions = [], []
    while len(seen) < stop and not simulator.finished(0):
        seen.append(observed(simulator))
        unfinished = simulator.state.finish[0, : instance.tasks] > simulator.state.now[0]
        unfinished |= simulator.state.device[0, : instance.tasks] < 0
        actions.append(int(rng.integers(seen[-1].count[0])))
        advance(simulator, actions[-1])
    longer = dataclasses.replace(instance, noise=instance.noise + 3.0 * unfinished)
    again = Simulator([longer], 1, **options)  # type: ignore[arg-type]
    for decision, action in zip(seen, actions, strict=True):
        assert_same(decision, observed(again))
        advance(again, action)


@given(worlds(noise=False), OPTIONS, SEEDS)
def test_jobs_that_have_not_entered_are_invisible_but_for_their_number_and_size(
    instance: SocDagInstance, options: dict[str, int], seed: int
) -> None:
    """Release all but the first job later: nothing changes before the second one would have entered."""
    assume(instance.jobs > 1)
    release = instance.release_time + 7.0 * (np.arange(instance.jobs) > 0)
    later = dataclasses.replace(instance, release=release)
    pair = [Simulator([each], 1, **options) for each in (instance, later)]  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    while not any(s.state.entered[0] > 1 or s.finished(0) for s in pair):
        first, second = map(observed, pair)
        if pair[0].state.now[0] != pair[1].state.now[0]:
            break  # waited for the other's entry
        assert_same(first, second)
        action = int(rng.integers(first.count[0]))
        for simulator in pair:
            advance(simulator, action)


@given(worlds())
def test_node_features_stay_within_the_bounds_of_their_table(instance: SocDagInstance) -> None:
    built, tables = static_graph(instance), instance.tables
    rows, devices = tables.duration.shape
    assert_within(built.node_features, FEATURES.node)
    assert built.node_features.shape == (rows + devices + 1, len(FEATURES.node))
    assert built.node_features[:, NODE["is_device"]].tolist() == [0] * rows + [1] * devices + [0]
    assert built.node_features[:, NODE["is_wait"]].tolist() == [0] * (rows + devices) + [1]
    assert built.edge_features.shape == (built.edge_index.shape[1], 0)
    edges, supported = len(tables.predecessor), int(np.isfinite(tables.duration).sum())
    count = np.bincount(built.edge_type, minlength=len(FEATURES.edge_types)).tolist()
    assert count[:2] == [edges, edges]
    assert count[2] == count[3]
    assert count[4] == count[5]
    assert count[2] + count[4] == supported
    ends = [set(map(tuple, built.edge_index[:, built.edge_type == k].T.tolist())) for k in range(6)]
    for there, back in zip(ends[::2], ends[1::2], strict=True):
        assert {(target, source) for source, target in there} == back


def test_static_graph_of_a_worked_example() -> None:
    # a takes 3 on the cpu and 4 on the gpu, b takes 2 and 5; 6 bytes between them take 4.
    built = static_graph(PAIR)
    # The gpu takes 4/3 of the cpu's time for a and 5/2 for b: slow for both.
    pairs = [[0, 1], [1, 0], [0, 2], [1, 2], [2, 0], [2, 1], [0, 3], [1, 3], [3, 0], [3, 1]]
    assert built.edge_index.T.tolist() == pairs
    assert built.edge_type.tolist() == [0, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    columns = {name: built.node_features[:, column].tolist() for name, column in NODE.items()}
    assert columns["duration"] == pytest.approx([1 / 2, 1 / 2, 0, 0, 0])
    assert columns["least_duration"] == pytest.approx([3 / 3.5, 2 / 3.5, 0, 0, 0])
    assert columns["unlikeness"] == pytest.approx([1 / 4, 3 / 5, 0, 0, 0])
    # Upward ranks: b 3.5, a 3.5 + 4 + 3.5 = 11; downward: b 7.5. The bound is 5, a's least tail 2.
    assert columns["upward_rank"] == pytest.approx([1, 3.5 / 11, 0, 0, 0])
    assert columns["downward_rank"] == pytest.approx([0, 7.5 / 11, 0, 0, 0])
    assert columns["least_tail"] == pytest.approx([2 / 5, 0, 0, 0, 0])
    assert columns["inputs"] == pytest.approx([0, 1 / 4, 0, 0, 0])
    assert columns["outputs"] == pytest.approx([1 / 4, 0, 0, 0, 0])
    assert columns["output_time"] == pytest.approx([4 / 7.5, 0, 0, 0, 0])
    assert columns["supported"] == [1, 1, 1, 1, 0]
    assert columns["speed"] == pytest.approx([0, 0, 1, (3 / 4 + 2 / 5) / 2, 0])
    assert columns["fastest_for"] == [0, 0, 1, 0, 0]
    # The mean over both devices of 0 to itself and 4 to the other, against a mean duration of 3.5.
    assert columns["remoteness"] == pytest.approx([0, 0, 2 / 5.5, 2 / 5.5, 0])
    assert columns["peers"] == [0, 0, 0.5, 0.5, 0]


def test_decision_of_a_worked_example() -> None:
    decision = observed(Simulator([PAIR], 1))
    # One mean task and transfer is 3.5 + 4 = 7.5, the bound 5. On the cpu a ends at 3, and b then at 5 (on the cpu);
    # on the gpu a ends at 4, and b at 9 there or at 4 + 4 + 2 = 10 on the cpu. Nothing is pending, so no waiting.
    assert decision.count.tolist() == [2]
    assert decision.candidates[0, :2].tolist() == [[0, 2], [0, 3]]
    expected = {
        "wait": [0, 0],
        "duration": [3 / 10.5, 4 / 11.5],
        "slowness": [0, 1 / 4],
        "finish_gap": [0, 1 / 8.5],
        "finish_scaled": [0, 1],
        # Optimistic tails: 2 from the cpu, 5 from the gpu.
        "path_gap": [0, 4 / 11.5],
        "path_scaled": [0, 1],
        "ahead_gap": [0, 4 / 11.5],
        "ahead_path_scaled": [0, 1],
        "finish_after_first": [0, 1 / 8.5],
        "path_against_bound": [0, 4 / 5],
        "ahead_against_bound": [0, 4 / 5],
        "start_after_first": [0, 0],
        "rank_gap": [0, 0],
        "rank_against_left": [1, 1],
        "depth": [0, 0],
        "first_by_rank": [1, 1],
        "queue": [0, 0],
        "local_inputs": [1, 1],
        "children": [1 / 4, 1 / 4],
        "releases": [1, 1],
        "output_time": [4 / 11.5, 4 / 11.5],
        "job_progress": [0, 0],
        "slack": [1, 1],
        "rivals": [0, 0],
    }
    for name, values in expected.items():
        assert decision.candidate_features[0, :2, CANDIDATE[name]].tolist() == pytest.approx(values), name
    context = {name: float(decision.context[0, column]) for name, column in CONTEXT.items()}
    assert context["progress"] == 0
    assert context["ready"] == pytest.approx(1 / 3)
    assert context["time_left"] == pytest.approx(1 / 2)
    assert context["latency_weight"] == 1
    assert context["idle_devices"] == 1
    assert context["online"] == 1
    assert context["devices"] == pytest.approx(0.2)


def test_waiting_shows_the_expected_time_to_the_next_end_not_the_true_one() -> None:
    # a is expected to take 4 and takes 8; meanwhile b is on offer. One mean task is 4.
    instance = soc(
        graph([[4.0], [4.0]]), devices=[Device(name="cpu")], counts=(2,), noise_sigma=1.0, noise=np.array([1.0, 0.0])
    )
    simulator = Simulator([instance], 1, skip_forced=False)
    advance(simulator, 0)
    decision = observed(simulator)
    assert decision.count.tolist() == [2]
    assert decision.candidate_features[0, 1, CANDIDATE["wait"]] == 1
    assert decision.candidate_features[0, 1, CANDIDATE["start_after_first"]] == pytest.approx(1 / 2)
    assert decision.context[0, CONTEXT["next_event"]] == pytest.approx(1 / 2)


@pytest.mark.parametrize("mode", ["online", "plan"])
def test_features_do_not_depend_on_the_unit_of_time(mode: Mode) -> None:
    base = topcuoglu(np.random.default_rng(1), tasks=12, devices=3, ccr=0.5)
    assert base.time_unit_s == 1.0
    scaled = dataclasses.replace(
        base,
        graphs=tuple(dataclasses.replace(g, duration=g.duration * 1000.0) for g in base.graphs),
        time_unit_s=0.001,
    )
    np.testing.assert_allclose(static_graph(base).node_features, static_graph(scaled).node_features, atol=1e-5)
    pair = [Simulator([instance], 1, mode=mode) for instance in (base, scaled)]
    rng = np.random.default_rng(0)
    while not pair[0].finished(0):
        first, second = map(observed, pair)
        np.testing.assert_array_equal(first.candidates, second.candidates)
        np.testing.assert_allclose(first.candidate_features, second.candidate_features, atol=1e-5)
        np.testing.assert_allclose(first.context, second.context, atol=1e-5)
        action = int(rng.integers(first.count[0]))
        for simulator in pair:
            advance(simulator, action)


def test_realistic_streams_stay_within_bounds_too() -> None:
    instance = agentic(np.random.default_rng(0), jobs=4, scale=1.0)
    simulator, rng = Simulator([instance], 1), np.random.default_rng(0)
    while not simulator.finished(0):
        decision = observed(simulator)
        assert_within(decision.candidate_features, FEATURES.candidate)
        assert_within(decision.context, FEATURES.context)
        advance(simulator, int(rng.integers(decision.count[0])))


def test_a_finished_row_reads_as_complete_and_unused_slots_as_zero() -> None:
    simulator = Simulator([topcuoglu(np.random.default_rng(2), tasks=8, devices=3)], 2)
    decision = DecisionBatch.allocate(2, simulator.slots, FEATURES)
    while not simulator.finished(0):
        simulator.observe(decision)
        assert not decision.candidate_features[0, decision.count[0] :].any()
        assert not decision.candidates[0, decision.count[0] :].any()
        advance(simulator, 0)
    simulator.observe(decision)
    assert decision.count.tolist() == [0, 0]
    assert not decision.candidate_features.any()
    assert decision.context[0].tolist() == [1.0] + [0.0] * (len(FEATURES.context) - 1)


def test_names_in_the_feature_table_are_unique_and_explained() -> None:
    for features in (FEATURES.node, FEATURES.candidate, FEATURES.context):
        assert len({feature.name for feature in features}) == len(features)
        assert all(len(feature.why) > 10 and feature.unit and feature.low < feature.high for feature in features)
