"""What the game offers, move by move: residence, copies, alias groups, outputs, layers, dead ends."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from small_games import COPY, DROP, NO_COPY, SLOW, Game, op, program

from schedrl.devices.memory import MemoryDevice, MemoryLayer
from schedrl.envs.memmap.generators import arbitrary
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.plan_check import check_plan
from schedrl.envs.memmap.state import safe_accesses

# What the tightest gap and the latest window have to offer depends on no hint.
_PLAIN = {"fits": ("best",), "windows": ("just-in-time",)}


def finish(game: Game, instance: MemoryMapInstance, kinds: list[int]) -> float:
    """Choose kinds to the end of the game; return the latency of the plan, which must be valid."""
    for kind in kinds:
        game.choose(kind)
    assert game.simulator.finished(0)
    assert check_plan(instance, game.simulator.solution(0)) == []
    return game.simulator.objective(0)


def test_a_parameter_is_fetched_kept_and_dropped() -> None:
    # Operation 0 hides 10 s; the parameter of 10 bytes is read three times.
    instance = program([op([], [], 10.0), op([0], []), op([0], []), op([0], [])], [10])
    game = Game(instance, **_PLAIN)
    assert game.offered == [(COPY, 1, 0, -1, 1), SLOW]
    assert game.choose(COPY) == pytest.approx(9 / 40)
    # A copy to where it already is is not offered.
    assert game.offered == [(NO_COPY, 1, 0, 0, 0), SLOW]
    assert game.choose(NO_COPY) == pytest.approx(9 / 40)
    assert game.choose(DROP) == 0.0
    assert game.simulator.objective(0) == pytest.approx(22.0)
    plan = game.simulator.solution(0)
    assert plan.access_layer.tolist() == [1, 1, 0]
    assert plan.residences.tolist() == [[0, 1, 0, 0, 2]]
    assert check_plan(instance, plan) == []


def test_nothing_is_fetched_before_the_first_operation() -> None:
    assert Game(program([op([0], [], 99.0)], [10]), **_PLAIN).offered == [SLOW]


def test_buffers_larger_than_the_layer_are_not_offered_a_place() -> None:
    game = Game(program([op([], [0]), op([0], [])], [11]), **_PLAIN)
    assert game.offered == [SLOW]


def test_slow_reads_of_a_fast_result_wait_for_a_copy_back() -> None:
    # Operation 1 hides 10 s: that is enough to write buffer 0 back, to be read from the slow layer by operation 2.
    instance = program([op([], [0]), op([], [], 10.0), op([0], [])], [10])
    game = Game(instance, **_PLAIN)
    assert game.offered == [(NO_COPY, 1, 0, 0, 0), (COPY, 1, 0, 0, 2), SLOW]
    game.choose(NO_COPY)
    assert game.offered == [(NO_COPY, 1, 0, 0, 0), (DROP, 0, -1, 0, 2)]
    assert finish(game, instance, [DROP]) == pytest.approx(1 + 10 + 10)
    assert game.simulator.solution(0).copies.tolist() == [[0, 0, 1, 0, 2]]
    assert game.simulator.solution(0).residences.tolist() == [[0, 1, 0, 0, 1]]


def test_an_update_in_place_hands_its_bytes_over() -> None:
    update = op([0], [1], groups=[0, 0])
    instance = program([op([], [0]), update, op([1], [])], [10, 10], capacity=10)
    game = Game(instance, **_PLAIN)
    # A copy back would keep the place that the update takes over.
    assert game.offered == [(NO_COPY, 1, 0, 0, 0), SLOW]
    game.choose(NO_COPY)
    game.choose(NO_COPY)
    # The group is bound to layer and offset now.
    assert game.offered == [(NO_COPY, 1, 0, 0, 0)]
    assert finish(game, instance, [NO_COPY, NO_COPY]) == pytest.approx(4.0)
    assert game.simulator.solution(0).residences.tolist() == [[0, 1, 0, 0, 1], [1, 1, 0, 1, 2]]


def test_a_group_in_the_slow_layer_stays_there() -> None:
    instance = program([op([], [0]), op([0], [1], groups=[0, 0]), op([1], [])], [10, 10], capacity=20)
    game = Game(instance, **_PLAIN)
    game.choose(DROP)
    game.choose(DROP)
    assert game.offered == [SLOW]
    assert finish(game, instance, [DROP, DROP]) == pytest.approx(40.0)


def test_a_masked_game_leaves_groups_alone_that_it_cannot_promise() -> None:
    # One group over two operations: were the first served fast, the second might find no room.
    group = {"groups": [0]}
    instance = program([op([], [], 30.0), op([0], [], 30.0, **group), op([1], [], **group)], [5, 10])
    assert safe_accesses(instance).tolist() == [False, False]
    assert Game(instance, **_PLAIN).offered == [SLOW]
    assert Game(instance, dead_ends="backup", **_PLAIN).offered == [(COPY, 1, 0, -1, 1), SLOW]


def test_a_dead_end_of_a_group_binds_it_to_the_slow_layer() -> None:
    # Buffer 1 must be where buffer 0 is, at offset 0, but is too large for the layer.
    group = {"groups": [0]}
    instance = program([op([], [], 30.0), op([0], [], 30.0, **group), op([1], [], **group)], [5, 11])
    game = Game(instance, dead_ends="backup", **_PLAIN)
    gained = game.choose(COPY)
    assert gained == 0.0  # bound by computing, and taken back at once: the group is one access further on
    assert (game.simulator.backups[0], game.simulator.state.position[0]) == (1, 0)
    assert game.offered == [SLOW]
    assert finish(game, instance, [DROP, DROP]) == pytest.approx(71.0)
    assert game.simulator.decisions[0] == 3


def test_what_a_back_up_loses_is_in_the_reward() -> None:
    ops = [op([], [0]), op([], [1]), op([1], []), op([0], [])]
    game = Game(program(ops, [10, 10]), dead_ends="backup", **_PLAIN)
    # The program takes 40 s without fast memory, and 9 s less for every fast access.
    assert [game.choose(NO_COPY) for _ in range(2)] == pytest.approx([9 / 40, 9 / 40])
    # The third is decided and taken back with the two before.
    assert game.choose(NO_COPY) == pytest.approx(-18 / 40)
    assert game.simulator.state.saved[0] == pytest.approx(0.0)


def test_outputs_of_a_masked_game_are_written_back() -> None:
    instance = program([op([], [0]), op([], [], 10.0)], [10], outputs=[0])
    game = Game(instance, **_PLAIN)
    assert game.offered == [(COPY, 1, 0, 0, 2), SLOW]
    # Without time for the copy back there is no choice.
    assert Game(program([op([], [0]), op([], [], 9.0)], [10], outputs=[0]), **_PLAIN).offered == [SLOW]
    assert finish(game, instance, [COPY]) == pytest.approx(11.0)


def test_a_game_with_back_ups_writes_outputs_back_at_the_end_or_returns() -> None:
    instance = program([op([], [0]), op([], [1], 11.0)], [10, 1], outputs=[0])
    game = Game(instance, dead_ends="backup", **_PLAIN)
    assert game.offered == [(NO_COPY, 1, 0, 0, 0), (COPY, 1, 0, 0, 2), SLOW]
    assert finish(game, instance, [NO_COPY, DROP]) == pytest.approx(1.0 + 11.0)
    assert game.simulator.solution(0).copies.tolist() == [[0, 0, 1, 0, 2]]
    # One second less of computing, and the output is stranded: back to its definition.
    instance = program([op([], [0]), op([], [1], 10.0)], [10, 1], outputs=[0])
    game = Game(instance, dead_ends="backup", **_PLAIN)
    rewards = [game.choose(NO_COPY), game.choose(DROP)]
    assert rewards == pytest.approx([9 / 20, -9 / 20])
    assert (game.simulator.backups[0], game.offered) == (1, [SLOW])
    assert finish(game, instance, [DROP, DROP]) == pytest.approx(20.0)


def two_fast_layers() -> MemoryDevice:
    rates = ((1.0, None), (4.0, 30), (10.0, 10))
    return MemoryDevice(
        name="three",
        flops_per_s=1.0,
        layers=tuple(
            MemoryLayer(name=str(k), read_bytes_per_s=rate, write_bytes_per_s=rate, capacity_bytes=capacity)
            for k, (rate, capacity) in enumerate(rates)
        ),
    )


def test_every_fast_layer_is_offered_and_a_move_between_them_goes_by_the_slow_one() -> None:
    instance = program([op([], [], 20.0), op([0], [], 20.0), op([0], [])], [10], memory=two_fast_layers())
    game = Game(instance, **_PLAIN)
    assert game.offered == [(COPY, 1, 0, -1, 1), (COPY, 2, 0, -1, 1), SLOW]
    game.choose(COPY, layer=1)
    # Operation 1 has not ended when the copy into the other layer would have to begin.
    assert game.offered == [(NO_COPY, 1, 0, 0, 0), (COPY, 2, 0, 0, 2), SLOW]
    assert finish(game, instance, [COPY]) == pytest.approx(41.0)
    assert game.simulator.solution(0).access_layer.tolist() == [1, 2]


def test_slots_are_layers_times_fits_times_windows() -> None:
    instance = program([op([], [], 40.0), op([], [], 40.0), op([0], [])], [4], memory=two_fast_layers())
    game = Game(instance, fits=("lowest", "highest"), windows=("just-in-time", "earliest"))
    assert game.simulator.slots == 2 + 2 * 2 * 2
    starts = [(layer, offset, start) for _, layer, offset, start, _ in game.offered[:-1]]
    assert starts == [
        (layer, offset, start)
        for layer, top in ((1, 26), (2, 6))
        for start in (0, -1)
        for offset in (0, top)
    ]  # fmt: skip


def test_negligible_buffers_stay_slow_without_asking() -> None:
    # Buffer 0 could save 9 s of 120, buffer 1 in both its accesses 99 s.
    instance = program([op([], [0]), op([], [1]), op([1], [])], [10, 55], capacity=100)
    assert Game(instance, negligible=0.07, **_PLAIN).offered[0][0] == NO_COPY
    game = Game(instance, negligible=0.08, **_PLAIN)
    assert game.offered == [SLOW]
    game.choose(DROP)
    assert game.offered[0][0] == NO_COPY


def test_a_slot_without_a_candidate_changes_nothing() -> None:
    game = Game(program([op([], [0]), op([0], [])], [10]), **_PLAIN)
    before, reward = game.offered, np.zeros(1)
    game.simulator.step(np.array([2], dtype=np.int32), reward, np.zeros(1, dtype=np.bool_))  # type: ignore[arg-type]
    assert (game.offered, float(reward[0])) == (before, 0.0)
    assert (game.simulator.invalid[0], game.simulator.decisions[0], game.simulator.invalid_limit[0]) == (1, 0, 2)


@given(seed=st.integers(0, 2**32 - 1))
def test_a_masked_game_never_offers_what_breaks_a_promise(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instance = arbitrary(rng, ops=int(rng.integers(2, 16)), fast_layers=2, groups=0.4)
    game = Game(instance, **_PLAIN)
    reward, done = np.zeros(1), np.zeros(1, dtype=np.bool_)
    safe = safe_accesses(instance)
    while not done[0]:
        state = game.simulator.state
        access, rows = int(state.position[0]), game.offered
        buffer = int(instance.access_buffer[access])
        assert rows
        for kind, layer, offset, *_ in rows:
            assert layer == 0 or safe[access]
            if instance.output[buffer] and instance.access_write[access]:
                assert kind != NO_COPY
            if layer == 0 or (kind == NO_COPY and not instance.access_write[access]):
                continue
            for other in range(instance.buffers):
                here = int(state.here[0, other])
                if other == buffer or here < 0 or state.residence[0, here, 1] != layer:
                    continue
                low, high = int(state.residence[0, here, 2]), int(state.residence[0, here, 2] + instance.size[other])
                later = (instance.access_buffer[access:] == other) & ~instance.access_write[access:]
                only = state.valid_from[0, other] > instance.ops and later.any()
                group = int(instance.access_group[access])  # type: ignore[index]
                hands_over = group >= 0 and instance.access_write[access]
                if only and not hands_over:
                    assert offset >= high or offset + instance.size[buffer] <= low
        game.simulator.step(rng.integers(len(rows), size=1).astype(np.int32), reward, done)  # type: ignore[arg-type]
    assert game.simulator.backups[0] == 0


def test_safe_groups_are_updates_in_place_of_a_last_use() -> None:
    def safe(sizes: list[int], *outputs: int) -> list[bool]:
        ops = [op([], [0]), op([0], [1], groups=[0, 0]), op([1], [])]
        return safe_accesses(program(ops, sizes, outputs=outputs)).tolist()

    assert safe([10, 10]) == [True] * 4
    assert safe([10, 8]) == [True] * 4
    # A larger result does not fit in its place, so neither buffer is produced in the fast layer; later reads may copy.
    assert safe([8, 10]) == [False, False, False, True]
    assert safe([10, 10], 1) == [False, False, False, True]
