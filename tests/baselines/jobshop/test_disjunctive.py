from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.arrays import I64
from schedrl.baselines.jobshop.disjunctive import (
    Selection,
    load_sequence,
    move_after,
    move_before,
    new_selection,
    sequence_of,
)
from schedrl.baselines.jobshop.dispatch import Dispatcher
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.solution import Schedule, check, objectives

JOB = st.lists(st.tuples(st.integers(0, 2), st.one_of(st.just(0), st.integers(1, 9))), min_size=1, max_size=5)
JOBS = st.lists(JOB, min_size=1, max_size=5)


def loaded(jobs: list[list[tuple[int, int]]], seed: int) -> tuple[JobShopInstance, Selection]:
    instance = JobShopInstance.from_jobs(jobs, name="random", machines=3)
    dispatcher = Dispatcher(instance)
    makespan = dispatcher.run(np.random.default_rng(seed).random(instance.operations))
    selection = new_selection(instance)
    assert load_sequence(selection, sequence_of(instance, dispatcher.schedule())) == makespan
    return instance, selection


def longest_paths(g: Selection) -> tuple[list[int], list[int]] | None:
    """Heads and tails by repeated relaxation over all arcs, None on a cycle."""
    count = len(g.sequence)
    arcs = [(i, i + 1) for i in range(count - 1) if g.job_after[i] == i + 1]
    same = zip(g.sequence[:-1].tolist(), g.sequence[1:].tolist(), strict=True)
    arcs += [(a, b) for a, b in same if g.machine[a] == g.machine[b]]
    # One extra unit per operation exposes cycles of zero durations too.
    weight, extra = g.duration.tolist(), [1] * count
    for lengths in (extra, weight):
        head, tail = [0] * count, [0] * count
        for _ in range(count + 1):
            before = list(head)
            for a, b in arcs:
                head[b] = max(head[b], head[a] + lengths[a])
                tail[a] = max(tail[a], tail[b] + lengths[b])
        if before != head:
            return None
    return head, tail


def all_moves(g: Selection) -> I64:
    pairs = [(a, b) for a in range(len(g.place)) for b in range(len(g.place)) if g.machine[a] == g.machine[b]]
    return np.array([(a, b) for a, b in pairs if g.place[a] < g.place[b]] or [(0, 0)])


@settings(max_examples=300, deadline=None)
@given(jobs=JOBS, seed=st.integers(0, 2**32 - 1))
def test_moves_keep_heads_tails_and_order_exact_and_refuse_cycles(jobs: list[list[tuple[int, int]]], seed: int) -> None:
    instance, g = loaded(jobs, seed)
    rng = np.random.default_rng(seed)
    for _ in range(8):
        early, late = rng.choice(all_moves(g)).tolist()
        if early == late:
            return
        before = [array.copy() for array in g]
        behind = bool(rng.integers(2))
        expected = g.sequence.tolist()
        expected.insert(int(g.place[late if behind else early]), expected.pop(int(g.place[early if behind else late])))
        moved = move_after(g, early, late) if behind else move_before(g, late, early)
        wanted = g._replace(sequence=np.array(expected, dtype=np.int32))
        assert moved == (longest_paths(wanted) is not None)
        if not moved:
            assert all(np.array_equal(a, b) for a, b in zip(g[:-1], before[:-1], strict=True))
            continue
        assert g.sequence.tolist() == expected
        assert (g.head.tolist(), g.tail.tolist()) == longest_paths(g)
        assert check(instance, Schedule(start_time=g.head.copy())) == []
        fresh = new_selection(instance)
        load_sequence(fresh, g.sequence)
        for name in ("place", "machine_before", "machine_after", "head", "tail"):
            assert np.array_equal(getattr(g, name), getattr(fresh, name))
        assert np.array_equal(g.order[g.rank], np.arange(instance.operations))
        assert not g.marked.any()


def test_cyclic_sequences_are_refused() -> None:
    instance = JobShopInstance.from_jobs([[(0, 2), (1, 3)], [(1, 4), (0, 5)]], name="two")
    g = new_selection(instance)
    # Each machine runs first the operation that must wait for the other machine.
    assert load_sequence(g, np.array([3, 0, 1, 2], dtype=np.int32)) == -1
    assert load_sequence(g, np.array([0, 3, 1, 2], dtype=np.int32)) == 14


def test_operations_of_one_job_in_a_row_cannot_be_swapped() -> None:
    instance = JobShopInstance.from_jobs([[(0, 2), (0, 0), (0, 3)]], name="in-a-row")
    g = new_selection(instance)
    assert load_sequence(g, np.array([0, 1, 2], dtype=np.int32)) == 5
    assert not move_after(g, 0, 1)
    assert not move_before(g, 2, 1)
    assert g.sequence.tolist() == [0, 1, 2]


@settings(max_examples=100, deadline=None)
@given(jobs=JOBS, seed=st.integers(0, 2**32 - 1))
def test_sequence_of_a_schedule_is_acyclic_and_no_longer(jobs: list[list[tuple[int, int]]], seed: int) -> None:
    instance, g = loaded(jobs, seed)
    delayed = Schedule(start_time=2 * g.head + 1)
    other = new_selection(instance)
    assert 0 <= load_sequence(other, sequence_of(instance, delayed)) <= objectives(instance, delayed)["makespan"]
