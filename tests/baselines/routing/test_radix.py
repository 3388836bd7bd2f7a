"""The gateway's tree on worked examples, and against sets of prefixes kept plainly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schedrl.baselines.routing.radix import RadixTree
from tests.baselines.routing.small_views import ids


def test_match_knows_the_last_owner_and_the_depth() -> None:
    tree = RadixTree(2, block_units=64)
    assert tree.match(ids(1, 2)) == (0, -1)
    tree.insert(ids(1, 2), 140, 0)
    assert tree.size == [140, 0]
    assert tree.match(ids(1, 2, 3)) == (128, 0)
    tree.insert(ids(1), 64, 1)
    # Instance 1 had the first block last, but only instance 0 the second.
    assert tree.match(ids(1)) == (64, 1) and tree.match(ids(1, 2)) == (128, 0)
    assert tree.matches(ids(1, 2, 3)).tolist() == [128, 64]
    assert tree.match(ids(7)) == (0, -1) and tree.match(ids()) == (0, -1)
    # The match of all of 1, 2 has instance 0 see the first block again.
    assert tree.match(ids(1)) == (64, 0)


def test_pages_cut_prompts_and_matches() -> None:
    tree = RadixTree(1, block_units=24, page_units=16)
    tree.insert(ids(1, 2), 60, 0)
    assert tree.size == [48] and tree.match(ids(1)) == (16, 0) and tree.match(ids(1, 2)) == (48, 0)


def test_what_was_not_seen_for_longest_leaves_from_the_leaves() -> None:
    tree = RadixTree(1, block_units=10)
    tree.insert(ids(1, 2), 20, 0)
    tree.insert(ids(1, 3), 20, 0)
    tree.insert(ids(5), 15, 0)
    assert tree.size == [45]
    tree.evict(45)
    assert tree.size == [45]
    # The leaves are 2, 3 and the tail behind 5.
    tree.evict(35)
    assert tree.match(ids(1, 2)) == (10, 0) and tree.match(ids(1, 3)) == (20, 0)
    # 1 and 3 were seen just now, so the tail goes before them, and 5 next.
    tree.evict(25)
    assert tree.size == [20] and tree.match(ids(5)) == (0, -1)
    tree.evict(0)
    assert tree.size == [0] and tree.match(ids(1)) == (0, -1)


def test_another_owner_is_left_when_one_is_evicted() -> None:
    tree = RadixTree(2, block_units=10)
    tree.insert(ids(1), 10, 0)
    tree.insert(ids(1, 2), 20, 1)
    assert tree.match(ids(1)) == (10, 1)
    tree.insert(ids(9), 10, 1)
    tree.evict(10)
    assert tree.size == [10, 10] and tree.match(ids(1)) == (10, 0)


PATHS = st.lists(st.integers(0, 1), max_size=4)


@given(st.lists(st.tuples(PATHS, st.integers(0, 2), st.integers(0, 4)), max_size=15), PATHS)
def test_against_plain_sets(sent: list[tuple[list[int], int, int]], asked: list[int]) -> None:
    def path(choices: list[int]) -> list[int]:
        return [int("1" + "".join(map(str, choices[: k + 1])), 2) for k in range(len(choices))]

    tree = RadixTree(3, block_units=5)
    known: list[set[int]] = [set(), set(), set()]
    tails = [0, 0, 0]
    for choices, owner, tail in sent:
        tree.insert(ids(*path(choices)), 5 * len(choices) + tail, owner)
        known[owner] |= set(path(choices))
        tails[owner] += tail
    assert tree.size == [5 * len(blocks) + tail for blocks, tail in zip(known, tails, strict=True)]
    depths = [5 * sum(node in blocks for node in path(asked)) for blocks in known]
    assert tree.matches(ids(*path(asked))).tolist() == depths
    found, owner = tree.match(ids(*path(asked)))
    assert found == max(depths) and (owner == -1 if found == 0 else depths[owner] == found)
    tree.evict(12)
    assert max(tree.size) <= 12
    left = tree.matches(ids(*path(asked))).tolist()
    assert all(0 <= now <= before for now, before in zip(left, depths, strict=True))
