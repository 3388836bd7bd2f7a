"""The built-in rules: what each chooses on a case worked out by hand, and that whole games of them hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.replay import check
from schedrl.envs.routing.rules import RULES
from schedrl.envs.routing.simulator import Simulator
from schedrl.envs.routing.solution import objectives
from tests.envs.routing.small_fleets import SEEDS, random_instance, row_of, server_of, workload_of

# The first instance is slow, the third fast. The third request shares its block with the first.
FLEET = [server_of(f"s{i}", coefficients=row_of(overhead=seconds)) for i, seconds in enumerate((4.0, 1.0, 0.5))]


def last_choice(rule: str, blocks: list[list[int]], times: tuple[float, ...] = (0.0, 0.1, 0.2)) -> int:
    """Return where a rule sends a third request, after a long prompt went to instance 0 and a short one to 1."""
    requests = [(times[0], 200, 4), (times[1], 20, 30), (times[2], 40, 4)]
    instance = workload_of(requests, FLEET, blocks)
    simulator = Simulator([instance], 1)
    simulator.send(0)
    simulator.send(1)
    simulator.play_rule(rule, np.random.default_rng(0))
    assert check(instance, simulator.solution(0)) == []
    return int(simulator.solution(0).instance[2])


@pytest.mark.parametrize(
    ("rule", "early", "late"),
    [
        # Nobody has the block yet, and instance 2 is idle; at 20 s the first has it and is idle again, as is the third.
        ("round-robin", 0, 0),
        ("least-outstanding", 2, 2),
        ("least-pending", 2, 0),
        ("min-ttft", 2, 2),
        ("affinity", 2, 0),
        ("least-pending-time", 2, 0),
        ("affinity-time", 2, 0),
    ],
)
def test_rules_choose_as_defined(rule: str, early: int, late: int) -> None:
    blocks = [[0, 1], [7], [0, 1]]
    assert last_choice(rule, blocks) == early
    assert last_choice(rule, blocks, (0.0, 0.1, 18.0)) == late


def test_ties_of_affinity_go_to_the_shortest_queue_or_time() -> None:
    # Nobody holds anything; 128 tokens are pending at the fast instance and 64 at the slow one, 1 s and 4 s of work.
    fleet = [FLEET[0], FLEET[2]]
    instance = workload_of([(0.0, 64, 2), (0.0, 128, 2), (0.1, 10, 2)], fleet)
    chosen = {}
    for rule in ("affinity", "affinity-time", "least-pending", "least-pending-time"):
        simulator = Simulator([instance], 1)
        simulator.send(0)
        simulator.send(1)
        simulator.play_rule(rule)
        chosen[rule] = int(simulator.solution(0).instance[2])
    assert chosen == {"affinity": 0, "affinity-time": 1, "least-pending": 0, "least-pending-time": 1}


def test_round_robin_takes_turns() -> None:
    instance = workload_of([(float(k), 5, 1) for k in range(7)], FLEET)
    simulator = Simulator([instance], 1)
    simulator.play_rule("round-robin")
    assert simulator.solution(0).instance.tolist() == [0, 1, 2, 0, 1, 2, 0]


def many(count: int) -> RoutingInstance:
    return workload_of([(0.001 * k, 5, 1) for k in range(count)], [server_of(f"s{i}") for i in range(4)])


def test_random_choices_are_even_and_follow_the_seed() -> None:
    instance = many(4000)
    counts = []
    for seed in (1, 1, 2):
        simulator = Simulator([instance], 1)
        simulator.play_rule("random", np.random.default_rng(seed))
        counts.append(np.bincount(simulator.solution(0).instance, minlength=4))
    assert counts[0].tolist() == counts[1].tolist() != counts[2].tolist()
    # Six standard deviations of a binomial count.
    assert np.abs(counts[0] - 1000).max() < 6 * np.sqrt(4000 * 0.25 * 0.75)


def test_two_choices_balance_better_than_one() -> None:
    spread = {}
    for rule in ("random", "power-of-two"):
        simulator = Simulator([many(1000)], 1)
        simulator.play_rule(rule, np.random.default_rng(0))
        spread[rule] = int(np.ptp(np.bincount(simulator.solution(0).instance, minlength=4)))
    assert spread["power-of-two"] < 10 < spread["random"]


@given(SEEDS, st.sampled_from(sorted(RULES)), st.booleans(), st.booleans())
def test_whole_games_of_rules_pass_the_checker(seed: int, rule: str, exact: bool, holds: bool) -> None:
    instance = random_instance(seed)
    simulator = Simulator([instance], 1, exact=exact, hold_s=0.1 * holds)
    simulator.play_rule(rule, np.random.default_rng(seed))
    plan = simulator.solution(0)
    assert simulator.finished(0) and simulator.invalid[0] == 0
    assert check(instance, plan) == []
    assert simulator.objective(0) == pytest.approx(objectives(instance, plan)["penalty"], rel=1e-9)


def test_rules_leave_finished_rows_alone() -> None:
    simulator = Simulator([many(3), many(5)], 2)
    simulator.play_rule("affinity")
    plans = [simulator.solution(row) for row in range(2)]
    simulator.play_rule("affinity")
    assert [simulator.solution(row) for row in range(2)] == plans and not simulator.invalid.any()
