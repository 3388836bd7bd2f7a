"""The packing game against a plain reference, hand-worked cases, and the checker."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.devices.memory import MemoryDevice, MemoryLayer
from schedrl.envs.memmap.generators import layered
from schedrl.envs.memmap.packing import OffsetPackingInstance, Packing, check_packing, max_live
from schedrl.envs.memmap.packing_generators import PACKING_GENERATORS, known_optimum, random_lifetimes
from schedrl.envs.memmap.packing_observation import FEATURES, most_edges, static_graph
from schedrl.envs.memmap.packing_simulator import PackingSimulator
from schedrl.envs.memmap.packing_state import TIES
from schedrl.envs.memmap.solution import objectives
from schedrl.errors import ConfigError
from schedrl.graphs import DecisionBatch

SEEDS = st.integers(0, 2**32 - 1)
NEEDS_DATA = pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no public instances")


def packing_of(lower: list[int], upper: list[int], size: list[int], **fields: Any) -> OffsetPackingInstance:
    arrays = {"lower": lower, "upper": upper, "size": size}
    return OffsetPackingInstance(name="p", **{name: np.array(values) for name, values in arrays.items()}, **fields)


@st.composite
def instances(draw: st.DrawFn, *, rigid: bool = True) -> OffsetPackingInstance:
    """Draw a small instance; a ``rigid`` one may have gaps, windows, alignment and given offsets."""
    rng = np.random.default_rng(draw(SEEDS))
    count = draw(st.integers(1, 9))
    lower = rng.integers(0, 8, size=count)
    upper = lower + rng.integers(1, 7, size=count)
    size = rng.integers(1, 7, size=count)
    if not rigid:
        return OffsetPackingInstance(name="p", lower=lower, upper=upper, size=size)
    gaps: list[list[tuple[int, int, int, int]]] = []
    for low, high, bytes_ in zip(lower.tolist(), upper.tolist(), size.tolist(), strict=True):
        times = sorted(rng.choice(np.arange(low, high + 1), 2, replace=False).tolist())
        window = sorted(rng.integers(0, bytes_ + 1, size=2).tolist()) if rng.random() < 0.5 else [0, 0]
        gaps.append([(*times, *window)] if rng.random() < 0.4 else [])
    alignment = rng.choice([1, 1, 2, 3], size=count)
    fixed = np.where(rng.random(count) < draw(st.sampled_from([0.0, 0.3])), rng.integers(0, 4, size=count), -1)
    flat = [gap for own in gaps for gap in own]
    instance = OffsetPackingInstance(
        name="p",
        lower=lower,
        upper=upper,
        size=size,
        alignment=alignment,
        gap_offset=np.cumsum([0, *map(len, gaps)]).astype(np.int32),
        gaps=np.array(flat, dtype=np.int64).reshape(-1, 4),
    )
    # Each given offset is kept if it goes with those before it.
    given_offset = np.full(count, -1)
    for b in np.flatnonzero(fixed >= 0).tolist():
        offset = int(fixed[b]) * int(alignment[b])
        if (
            lowest_offset(instance, {o: int(given_offset[o]) for o in range(b) if given_offset[o] >= 0}, b, offset)
            == offset
        ):
            given_offset[b] = offset
    return dataclasses.replace(instance, fixed_offset=given_offset)


def lowest_offset(instance: OffsetPackingInstance, placed: dict[int, int], buffer: int, start: int = 0) -> int:
    """Return the least aligned offset from ``start`` on without overlap, byte by byte."""
    begin, end, low, high, owner = (array.tolist() for array in instance.live)
    assert instance.alignment is not None
    for offset in itertools.count(start):
        meets = any(
            begin[i] < end[j]
            and begin[j] < end[i]
            and offset + low[i] < placed[owner[j]] + high[j]
            and placed[owner[j]] + low[j] < offset + high[i]
            for i in range(len(owner))
            for j in range(len(owner))
            if owner[i] == buffer and owner[j] in placed
        )
        if offset % instance.alignment[buffer] == 0 and not meets:
            return offset
    raise AssertionError


def reference_candidates(instance: OffsetPackingInstance, placed: dict[int, int]) -> list[tuple[int, int]]:
    """Return buffer and offset of the candidates in the order of the game with ties by size."""
    assert instance.fixed_offset is not None
    left = [b for b in range(instance.buffers) if b not in placed]
    free = [b for b in left if instance.fixed_offset[b] < 0] or left
    offset = {
        b: int(instance.fixed_offset[b]) if instance.fixed_offset[b] >= 0 else lowest_offset(instance, placed, b)
        for b in free
    }
    size, duration = instance.size, instance.upper - instance.lower
    free.sort(key=lambda b: (offset[b], -size[b], -duration[b], b))
    least_end = min((offset[b] + size[b] for b in free), default=0)
    return [(b, offset[b]) for b in free if offset[b] < least_end]


def step(simulator: PackingSimulator, action: int) -> tuple[float, bool]:
    reward, done = np.zeros(simulator.batch, dtype=np.float32), np.zeros(simulator.batch, dtype=np.bool_)
    simulator.step(np.full(simulator.batch, action, dtype=np.int32), reward, done)
    return float(reward[0]), bool(done[0])


def candidates(simulator: PackingSimulator, row: int = 0) -> list[tuple[int, int]]:
    """Return buffer and offset of every candidate of a row."""
    state = simulator.state
    own = state.order[row, : state.candidates[row]]
    return list(zip(state.number[row, own].tolist(), state.lowest[row, own].tolist(), strict=True))


def play(simulator: PackingSimulator, rng: np.random.Generator) -> Iterator[float]:
    """Take random actions in row 0 until its end and yield the rewards."""
    while not simulator.finished(0):
        yield step(simulator, int(rng.integers(simulator.state.candidates[0])))[0]


@given(instances(), SEEDS)
def test_candidates_equal_a_plain_reference_at_every_decision(instance: OffsetPackingInstance, seed: int) -> None:
    simulator = PackingSimulator([instance], 1, skip_forced=False)
    rng = np.random.default_rng(seed)
    assert instance.fixed_offset is not None
    fixed = np.flatnonzero(instance.fixed_offset >= 0)
    placed = {int(b): int(instance.fixed_offset[b]) for b in fixed}
    if len(placed) == instance.buffers:
        del placed[candidates(simulator)[0][0]]  # one stays, so that there is a decision
    while not simulator.finished(0):
        offered = candidates(simulator)
        assert offered == reference_candidates(instance, placed)
        action = int(rng.integers(len(offered)))
        placed[offered[action][0]] = offered[action][1]
        step(simulator, action)
    assert simulator.solution(0).offset.tolist() == [placed[b] for b in range(instance.buffers)]


@given(instances(), st.sampled_from(TIES), st.integers(1, 4), st.booleans(), SEEDS)
def test_random_episodes_are_valid_and_returns_equal_the_relative_peak(
    instance: OffsetPackingInstance, ties: str, window: int, skip_forced: bool, seed: int
) -> None:
    simulator = PackingSimulator([instance], 1, window=window, ties=ties, skip_forced=skip_forced)
    assert simulator.state.candidates[0] >= 1, "every episode has a decision"
    earned = []
    for reward in play(simulator, np.random.default_rng(seed)):
        assert simulator.state.candidates[0] <= window
        earned.append(reward)
    packing = simulator.solution(0)
    assert check_packing(instance, packing) == []
    assert simulator.objective(0) == objectives(instance, packing)["peak"] == simulator.state.bound[0]
    live = max(max_live(instance), 1)
    # Rewards have single precision, of which only the last one's error is left.
    assert sum(earned) == pytest.approx((live - simulator.objective(0)) / live, rel=1e-7, abs=1e-7)
    assert all(reward <= 1e-6 for reward in earned), "the bound never falls"


@given(instances(), SEEDS)
def test_the_bound_holds_for_every_completion(instance: OffsetPackingInstance, seed: int) -> None:
    simulator = PackingSimulator([instance], 1)
    rng = np.random.default_rng(seed)
    for _ in range(int(rng.integers(4))):
        if not simulator.finished(0):
            step(simulator, int(rng.integers(simulator.state.candidates[0])))
    bound, saved = int(simulator.state.bound[0]), simulator.snapshot()
    for _ in range(20):
        simulator.restore(saved)
        for _ in play(simulator, rng):
            pass
        assert simulator.objective(0) >= bound


def least_peak(simulator: PackingSimulator) -> float:
    """Return the least peak over all action sequences, by depth-first search."""
    if simulator.finished(0):
        return simulator.objective(0)
    saved, best = simulator.snapshot(), np.inf
    for slot in range(int(simulator.state.candidates[0])):
        step(simulator, slot)
        best = min(best, least_peak(simulator))
        simulator.restore(saved)
    return best


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_some_sequence_of_actions_leads_to_an_optimum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lower = rng.integers(0, 5, size=5)
    instance = OffsetPackingInstance(
        name="p", lower=lower, upper=lower + rng.integers(1, 4, size=5), size=rng.integers(1, 5, size=5)
    )
    # Left-justified, every packing comes from placing the buffers in the order of their offsets.
    every = []
    for order in itertools.permutations(range(5)):
        placed: dict[int, int] = {}
        for b in order:
            placed[b] = lowest_offset(instance, placed, b)
        every.append(max(placed[b] + int(instance.size[b]) for b in placed))
    assert least_peak(PackingSimulator([instance], 1)) == min(every)


def test_worked_example() -> None:
    # 0 and 1 are live at once, 2 follows 0 and meets 1, 3 meets them all: 3 + 4 + 2 bytes at once, then 4 + 4 + 2.
    instance = packing_of([0, 0, 2, 0], [2, 4, 4, 4], [3, 4, 4, 2])
    simulator = PackingSimulator([instance], 1)
    assert max_live(instance) == 10
    # Every buffer can lie at 0, below the least end of 2; the larger comes first, then the one that lives longer.
    assert candidates(simulator) == [(1, 0), (2, 0), (0, 0), (3, 0)]
    # With 2 at the bottom, 0 can be beside it; 1 and 3 lie above 4 bytes: the bound stays 4 + 4 + 2.
    assert step(simulator, 1) == (0.0, False)
    # Of the rest only 0 lies below its end of 3, is placed, and then 1 and 3 are left at byte 4.
    assert candidates(simulator) == [(1, 4), (3, 4)]
    assert step(simulator, 1) == (0.0, True)
    assert simulator.solution(0).offset.tolist() == [0, 6, 0, 4]
    assert (simulator.objective(0), simulator.finished(0)) == (10.0, True)


def test_rewards_are_the_rise_of_the_bound() -> None:
    # 1 between 0 and 2 in time: put on 2, it leaves 3 bytes empty, for it and 0 reach 4 + 2 + 3 instead of 6.
    instance = packing_of([0, 1, 2], [2, 3, 4], [3, 2, 4])
    simulator = PackingSimulator([instance], 1, skip_forced=False)
    assert candidates(simulator) == [(2, 0), (0, 0), (1, 0)]
    assert step(simulator, 0)[0] == 0.0
    assert candidates(simulator) == [(0, 0)]
    assert step(simulator, 0) == (0.0, False)
    assert step(simulator, 0) == (0.0, True)
    assert simulator.objective(0) == 6.0
    simulator.load(0, packing_of([0, 1, 2], [2, 3, 4], [5, 2, 4]))
    # 1 upon 0 begins at 5 and 2 upon it at 7, to end at 11, four above the seven bytes live at once.
    assert candidates(simulator) == [(0, 0), (2, 0), (1, 0)]
    step(simulator, 2)
    assert candidates(simulator) == [(0, 2), (2, 2)]


def test_windows_gaps_alignment_and_given_offsets() -> None:
    # The buffer of 8 bytes keeps only its upper half from 2 to 4: the other fits below, at a multiple of 3.
    windowed = packing_of(
        [0, 2], [6, 4], [8, 3], gap_offset=np.array([0, 1, 1], dtype=np.int32), gaps=np.array([[2, 4, 4, 8]])
    )
    simulator = PackingSimulator([windowed], 1, skip_forced=False)
    step(simulator, 0)
    assert candidates(simulator) == [(1, 0)]
    aligned = packing_of([0, 0], [2, 2], [4, 3], alignment=np.array([1, 3]))
    simulator.load(0, aligned)
    step(simulator, 0)
    assert candidates(simulator) == [(1, 6)]
    # Bytes 4 to 8 are taken: below them there is room for 4 bytes and not for 5.
    fixed = packing_of([0, 0, 0], [3, 3, 3], [4, 4, 5], fixed_offset=np.array([4, -1, -1]))
    simulator.load(0, fixed)
    assert candidates(simulator) == [(1, 0)]
    step(simulator, 0)
    assert candidates(simulator) == [(2, 8)]
    step(simulator, 0)
    assert simulator.objective(0) == 13.0
    simulator.load(0, packing_of([0, 0], [1, 1], [2, 3], fixed_offset=np.array([5, 1])))
    assert candidates(simulator) in ([(0, 5)], [(1, 1)])
    step(simulator, 0)
    assert simulator.solution(0).offset.tolist() == [5, 1]


def test_forced_placements_are_skipped_up_to_the_last() -> None:
    alone = packing_of([0, 1, 2], [1, 2, 3], [3, 2, 1])
    stacked = packing_of([0, 0], [1, 1], [3, 3])
    for instance, expected in ((alone, 2), (stacked, 1)):
        simulator = PackingSimulator([instance], 1)
        assert sum(1 for _ in play(simulator, np.random.default_rng(0))) == expected
    one = PackingSimulator([packing_of([0], [1], [7])], 1)
    assert step(one, 0) == (0.0, True)
    assert one.objective(0) == 7.0


def test_invalid_and_negative_actions_change_nothing() -> None:
    simulator = PackingSimulator([known_optimum(np.random.default_rng(0), buffers=10)], 1, window=4)
    before = candidates(simulator)
    assert step(simulator, -1) == (0.0, False)
    assert (candidates(simulator), int(simulator.invalid[0])) == (before, 0)
    assert step(simulator, 4) == (0.0, False)
    assert (candidates(simulator), int(simulator.invalid[0])) == (before, 1)
    assert simulator.invalid_limit.tolist() == [10]


def test_following_the_cutting_restores_it() -> None:
    for seed in range(20):
        instance = known_optimum(np.random.default_rng(seed), buffers=30, spare=0.0)
        assert instance.hint is not None
        target = Packing(offset=instance.hint)
        simulator = PackingSimulator([instance], 1, window=30)
        while not simulator.finished(0):
            step(simulator, simulator.follow(0, target))
        assert simulator.solution(0) == target
        assert simulator.objective(0) == max_live(instance)


def test_snapshots_continue_bit_for_bit() -> None:
    instances_ = [make(np.random.default_rng(1)) for make in PACKING_GENERATORS.values()]
    simulator = PackingSimulator(instances_, 3)

    def run(seed: int) -> list[bytes]:
        rng, seen = np.random.default_rng(seed), []
        decision = DecisionBatch.allocate(3, simulator.slots, FEATURES)
        reward, done = np.zeros(3, dtype=np.float32), np.zeros(3, dtype=np.bool_)
        for _ in range(40):
            simulator.observe(decision)
            seen.append(decision.candidate_features.tobytes() + decision.context.tobytes() + reward.tobytes())
            action = np.where(decision.count > 0, rng.random(3) * decision.count, -1).astype(np.int32)
            simulator.step(action, reward, done)
        return seen

    run(0)
    saved = simulator.snapshot()
    first = run(1)
    run(2)
    simulator.restore(saved)
    assert run(1) == first


def test_larger_instances_get_room() -> None:
    small, large = (random_lifetimes(np.random.default_rng(0), buffers=n) for n in (5, 60))
    simulator = PackingSimulator([small], 2)
    simulator.load(1, large)
    alone = PackingSimulator([large], 1)
    assert candidates(simulator, 1) == candidates(alone)
    assert candidates(simulator, 0) == candidates(PackingSimulator([small], 1))
    while not simulator.finished(1):
        step(simulator, 0)
        step(alone, 0)
    assert simulator.solution(1) == alone.solution(0)
    assert check_packing(small, simulator.solution(0)) == []


@given(instances(), st.sampled_from(TIES), st.integers(1, 5), SEEDS)
def test_features_are_within_their_bounds(instance: OffsetPackingInstance, ties: str, window: int, seed: int) -> None:
    simulator = PackingSimulator([instance], 1, window=window, ties=ties)
    decision = DecisionBatch.allocate(1, window, FEATURES)
    bounds = {
        kind: (np.array([f.low for f in table]), np.array([f.high for f in table]))
        for kind, table in (("candidate", FEATURES.candidate), ("context", FEATURES.context), ("node", FEATURES.node))
    }
    graph = static_graph(instance)
    assert graph.node_features.shape == (2 * instance.buffers, len(FEATURES.node))
    assert ((bounds["node"][0] <= graph.node_features) & (graph.node_features <= bounds["node"][1])).all()
    assert graph.edge_index.shape[1] == most_edges(instance) == len(graph.edge_type)
    assert graph.edge_index.min() >= 0 and graph.edge_index.max() < 2 * instance.buffers
    rng = np.random.default_rng(seed)
    while not simulator.finished(0):
        simulator.observe(decision)
        count = int(decision.count[0])
        assert decision.candidates[0, :count, 0].tolist() == [buffer for buffer, _ in candidates(simulator)]
        for kind, values in (("candidate", decision.candidate_features[0]), ("context", decision.context[0])):
            low, high = bounds[kind]
            outside = (values < low - 1e-6) | (values > high + 1e-6) | ~np.isfinite(values)
            assert not outside.any(), [getattr(FEATURES, kind)[k].name for k in np.argwhere(outside)[:, -1]]
        assert not decision.candidate_features[0, count:].any()
        step(simulator, int(rng.integers(count)))
    simulator.observe(decision)
    assert decision.count[0] == 0 and not decision.context.any()


def test_features_of_a_worked_example() -> None:
    instance = packing_of([0, 0, 2, 0], [2, 4, 4, 4], [3, 4, 4, 2])
    simulator = PackingSimulator([instance], 1)
    step(simulator, 1)  # buffer 2 at 0, and then 0 beside it, which is forced
    decision = DecisionBatch.allocate(1, 32, FEATURES)
    simulator.observe(decision)
    names = [feature.name for feature in FEATURES.candidate]
    first = dict(zip(names, decision.candidate_features[0, 0].tolist(), strict=True))
    assert decision.candidates[0, :2, 0].tolist() == [1, 3]
    # Buffer 1: 4 bytes at offset 4, over 3 placed bytes in the first section and 4 in the second; 6 bytes are left.
    expected = {
        "size": 0.4,
        "size among candidates": 1.0,
        "duration": 1.0,
        "begin": 0.0,
        "end": 1.0,
        "area": 16 / 24,
        "offset": 0.4,
        "height": 0.0,
        "top": 0.8,
        "overshoot": 0.2,
        "slack": 0.0,
        "mean slack": 0.0,
        "pressure": 1.0,
        "void": 0.05,
        "step before": 0.0,
        "step after": 0.0,
        "level": 0.0,
        "conflicts": 0.5,
        "share": 4 / 6,
    }
    assert first == pytest.approx(expected, abs=1e-6)
    context = dict(zip([feature.name for feature in FEATURES.context], decision.context[0].tolist(), strict=True))
    assert context == pytest.approx(
        {
            "progress": 0.5,
            "live": 1.0,
            "peak": 0.4,
            "lowest": 0.4,
            "depth": 0.2,
            "candidates": 2 / 32,
            "hidden": 0.0,
            "area": 24 / 38,
            "mean pressure": 1.0,
            "critical": 1.0,
            "placed": 0.35,
            "waste": 0.05,
            "largest": 0.4,
        },
        abs=1e-6,
    )


def test_bad_options_and_instances_are_named() -> None:
    instance = packing_of([0], [1], [1])
    for options, message in (
        ({"window": 0}, "window: 0, expected an integer of at least 1"),
        ({"ties": "age"}, "ties: 'age', expected one of size, area, duration, conflicts"),
    ):
        with pytest.raises(ConfigError, match=message):
            PackingSimulator([instance], 1, **options)  # type: ignore[arg-type]
    device = MemoryDevice(
        name="d",
        flops_per_s=1.0,
        layers=tuple(
            MemoryLayer(name=name, read_bytes_per_s=1.0, write_bytes_per_s=1.0, capacity_bytes=capacity)
            for name, capacity in (("slow", None), ("fast", 10))
        ),
    )
    program = layered(np.random.default_rng(0), layers=2).with_memory(device, name="net")
    with pytest.raises(ConfigError, match=r"^instance net: offset packing plays lifetimes, not programs$"):
        PackingSimulator([program], 1)  # type: ignore[list-item]
    with pytest.raises(ConfigError, match=r"^instance net: offset packing plays lifetimes, not programs$"):
        PackingSimulator([instance], 1).load(0, program)  # type: ignore[arg-type]
    clash = packing_of([0, 0], [2, 1], [4, 4], fixed_offset=np.array([0, 3]), labels=("x", "y"))
    with pytest.raises(
        ConfigError, match=r"^instance p has no packing: of given offsets, buffers x and y overlap at time 0"
    ):
        PackingSimulator([clash], 1)


@cache
def challenging(name: str) -> OffsetPackingInstance:
    from schedrl.envs.memmap.formats import read_minimalloc

    return read_minimalloc(Path(os.environ["SCHEDRL_DATA"], "memmap", "minimalloc_challenging", f"{name}.1048576.csv"))


# Peaks per most bytes live at once of a separate one-pass implementation with ties by duration, measured earlier.
LOWEST_FIRST = {
    "A": 1.162,
    "B": 1.225,
    "C": 1.262,
    "D": 1.208,
    "E": 1.403,
    "F": 1.271,
    "G": 1.221,
    "H": 1.256,
    "I": 1.396,
    "J": 1.150,
    "K": 1.198,
}


@NEEDS_DATA
def test_always_the_first_candidate_is_the_one_pass_rule_of_the_reference_figures() -> None:
    simulator = PackingSimulator([challenging(name) for name in LOWEST_FIRST], len(LOWEST_FIRST), ties="duration")
    reward, done = np.zeros(simulator.batch, dtype=np.float32), np.zeros(simulator.batch, dtype=np.bool_)
    while not done.all():
        simulator.step(np.zeros(simulator.batch, dtype=np.int32), reward, done)
    for row, (name, ratio) in enumerate(LOWEST_FIRST.items()):
        assert check_packing(dataclasses.replace(challenging(name), capacity=None), simulator.solution(row)) == []
        assert simulator.objective(row) / max_live(challenging(name)) == pytest.approx(ratio, abs=6e-4)
