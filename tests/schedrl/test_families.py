"""Names of families and their other games, and the objective of an instance."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from schedrl import families
from schedrl.envs.memmap.packing import OffsetPackingInstance
from schedrl.errors import UnknownNameError
from schedrl.families import Family, family_names, game_names, get_family


@pytest.fixture
def games(monkeypatch: pytest.MonkeyPatch) -> tuple[Family, Family, Family]:
    """Register the families ``plain``, without other games, and ``rich``, with one that is called ``upside-down``."""
    own = get_family("jobshop")
    plain, other = replace(own, name="plain", games={}), replace(own, name="rich:upside-down", games={})
    rich = replace(own, name="rich", games={"upside-down": other})
    module = SimpleNamespace(PLAIN=plain, RICH=rich)
    monkeypatch.setitem(sys.modules, "two_families", module)  # type: ignore[arg-type]  # importlib takes what is there
    monkeypatch.setattr(families, "_FAMILIES", {"plain": "two_families:PLAIN", "rich": "two_families:RICH"})
    return plain, rich, other


def test_the_families_of_the_package() -> None:
    assert family_names() == ("jobshop", "socdag", "memmap", "moe", "routing")
    for name in family_names():
        assert get_family(name).name == name
    names = game_names()
    assert len(set(names)) == len(names)
    assert [name for name in names if ":" not in name] == list(family_names())
    for name in names:
        assert isinstance(get_family(name), Family)


def test_games_follow_their_family(games: tuple[Family, Family, Family]) -> None:
    plain, rich, other = games
    assert game_names() == ("plain", "rich", "rich:upside-down")
    assert get_family("plain") is plain
    assert get_family("rich") is rich
    assert get_family("rich:upside-down") is other


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("poor", "unknown family 'poor'; choose from plain, rich"),
        ("poor:upside-down", "unknown family 'poor:upside-down'; choose from plain, rich"),
        ("", "unknown family ''; choose from plain, rich"),
        ("rich:nope", "unknown game 'rich:nope' of family rich; choose from rich:upside-down"),
        ("plain:upside-down", "unknown game 'plain:upside-down' of family plain; it has no others"),
    ],
)
def test_unknown_names_list_the_known_ones(games: tuple[Family, Family, Family], name: str, message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        get_family(name)
    assert str(caught.value) == message


def test_an_unknown_game_of_memory_mapping() -> None:
    with pytest.raises(UnknownNameError, match=r"^unknown game 'memmap:tetris' of family memmap; "):
        get_family("memmap:tetris")


def test_an_instance_may_name_an_objective_of_its_own() -> None:
    memmap = get_family("memmap")
    program = memmap.generators["arbitrary"](np.random.default_rng(0), ops=3)
    packing = OffsetPackingInstance(name="p", lower=np.array([0]), upper=np.array([1]), size=np.array([1]))
    assert memmap.objective_of(program) == memmap.objective == "latency"
    assert memmap.objective_of(packing) == "peak"
    shop = get_family("jobshop")
    assert shop.objective_of(object()) == shop.objective == "makespan"
