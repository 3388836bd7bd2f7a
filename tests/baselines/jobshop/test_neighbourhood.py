from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.baselines.jobshop.disjunctive import (
    Selection,
    load_sequence,
    makespan_of,
    move_after,
    move_before,
    new_selection,
    sequence_of,
)
from schedrl.baselines.jobshop.dispatch import Dispatcher
from schedrl.baselines.jobshop.neighbourhood import (
    BEST,
    Search,
    critical_path,
    distance,
    estimate,
    list_moves,
    new_search,
    perturb,
    relink,
    restart,
    tabu_search,
)
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.suites import load_instance

JOB = st.lists(st.tuples(st.integers(0, 2), st.one_of(st.just(0), st.integers(1, 9))), min_size=1, max_size=6)
JOBS = st.lists(JOB, min_size=1, max_size=6)


def loaded(instance: JobShopInstance, seed: int = 0) -> tuple[Selection, Search]:
    dispatcher = Dispatcher(instance)
    dispatcher.run(np.random.default_rng(seed).random(instance.operations))
    selection = new_selection(instance)
    load_sequence(selection, sequence_of(instance, dispatcher.schedule()))
    search = new_search(instance.machine, instance.jobs, instance.machines, seed)
    restart(search)
    return selection, search


@settings(max_examples=300, deadline=None)
@given(jobs=JOBS, seed=st.integers(0, 10**6))
def test_critical_path_is_a_longest_path_and_no_listed_move_closes_a_cycle(
    jobs: list[list[tuple[int, int]]], seed: int
) -> None:
    instance = JobShopInstance.from_jobs(jobs, name="random", machines=3)
    g, s = loaded(instance, seed)
    makespan = makespan_of(g)
    length = critical_path(g, s, makespan)
    assert g.duration[s.path[:length]].sum() == makespan
    moves = s.moves[: list_moves(g, s, length)].tolist()
    sequence = g.sequence.copy()
    for moved, target, behind in moves:
        load_sequence(g, sequence)
        assert move_after(g, moved, target) if behind else move_before(g, moved, target)


def test_estimates_are_exact_for_most_moves_and_close_for_all() -> None:
    g, s = loaded(load_instance("la21"))
    buffer = np.empty(len(g.sequence), dtype=np.int64)
    exact = total = 0
    for _ in range(50):
        perturb(g, s, 3)
        sequence = g.sequence.copy()
        makespan = makespan_of(g)
        for moved, target, behind in s.moves[: list_moves(g, s, critical_path(g, s, makespan))].tolist():
            load_sequence(g, sequence)
            guess = estimate(g, moved, target, behind, buffer)
            if behind:
                move_after(g, moved, target)
            else:
                move_before(g, moved, target)
            real = makespan_of(g)
            # Paths around the shifted operations can be longer than the ones through them.
            assert guess <= real + makespan // 10
            total += 1
            exact += guess == real or guess < makespan == real
        load_sequence(g, sequence)
    assert total > 300 and exact > 0.7 * total


def test_tabu_search_improves_a_random_start_and_keeps_its_best_sequence() -> None:
    g, s = loaded(load_instance("ft06"))
    start = makespan_of(g)
    while tabu_search(g, s, 100, 2000, 55):
        pass
    assert start > 55 == s.counters[BEST] == load_sequence(g, s.best_sequence)


def test_tabu_search_ends_by_patience() -> None:
    g, s = loaded(load_instance("ft06"))
    assert tabu_search(g, s, 10, 50, 0)
    assert not tabu_search(g, s, 10**6, 50, 0)


def test_relinking_walks_the_distance_to_its_goal() -> None:
    instance = load_instance("la21")
    g, s = loaded(instance, 1)
    goal = g.place.copy()
    g, s = loaded(instance, 2)
    apart = distance(g, goal)
    assert apart > 100
    relink(g, s, goal, 40)
    assert distance(g, goal) == apart - 40
    relink(g, s, goal, apart)
    assert distance(g, goal) == 0
    assert np.array_equal(g.place, goal)
