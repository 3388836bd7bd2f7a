from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schedrl.envs.moe.cache_instance import ExpertCacheInstance
from schedrl.envs.moe.cache_simulator import CacheSimulator
from schedrl.envs.moe.family import FAMILY
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.problems import AnyInstance, AnySolution
from schedrl.envs.moe.rebalance_simulator import RebalanceSimulator
from schedrl.envs.moe.simulator import Simulator
from schedrl.errors import SolutionError
from schedrl.families import Family, family_names, game_names, get_family
from tests.envs.moe.test_problems import CACHE, PLACEMENT, PLAN, SCHEDULE

GAMES = {"moe": Simulator, "moe:rebalance": RebalanceSimulator, "moe:cache": CacheSimulator}


def test_the_family_is_registered_with_its_games() -> None:
    assert "moe" in family_names()
    assert {"moe:rebalance", "moe:cache"} <= set(game_names())
    assert get_family("moe") is FAMILY
    assert {name: get_family(name).make_simulator for name in GAMES} == GAMES


def test_objectives_follow_the_problem() -> None:
    assert [get_family(name).objective for name in GAMES] == ["total_time", "total_time", "decode_time"]
    assert FAMILY.objective_of(PLACEMENT) == "total_time"
    assert FAMILY.objective_of(CACHE) == "decode_time"


@pytest.mark.parametrize("name", GAMES)
def test_the_benchmark_instance_is_played_to_a_checked_end(name: str) -> None:
    family = get_family(name)
    instance = family.benchmark.draw(family, 1)[0]
    simulator = family.make_simulator([instance], 1, **family.benchmark.simulator)
    reward, done, steps = np.zeros(1, dtype=np.float32), np.zeros(1, dtype=np.bool_), 0
    while not simulator.finished(0) and (steps := steps + 1) < 100_000:
        simulator.step(np.zeros(1, dtype=np.int32), reward, done)
    solution = simulator.solution(0)
    assert family.check(instance, solution) == []
    values = family.objectives(instance, solution)
    assert simulator.objective(0) == pytest.approx(values[family.objective], rel=1e-9)
    assert all(bound.value <= values[family.objective] * (1 + 1e-9) for bound in family.bounds(instance))


def test_caching_offers_only_caches_and_placing_lists_the_suites_of_both() -> None:
    rng = np.random.default_rng(0)
    cache, rebalance = get_family("moe:cache"), get_family("moe:rebalance")
    assert isinstance(cache.generators["arbitrary"](rng) if "arbitrary" in cache.generators else CACHE,
                      ExpertCacheInstance)  # fmt: skip
    assert isinstance(FAMILY.generators["arbitrary"](rng), ExpertPlacementInstance)
    assert set(cache.suites) < set(FAMILY.suites) == set(rebalance.suites)
    assert not set(cache.generators) & {"qwen15-moe", "deepseek-r1-mt"}


def test_files_of_both_problems_are_read_from_one_folder(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(PLACEMENT.to_json(), encoding="utf-8")
    (tmp_path / "b.json").write_text(CACHE.to_json(), encoding="utf-8")
    assert list(FAMILY.read_instances(tmp_path)) == [PLACEMENT, CACHE]
    assert FAMILY.instance_type is AnyInstance and FAMILY.solution_type is AnySolution


@pytest.mark.parametrize(("instance", "solution"), [(PLACEMENT, PLAN), (CACHE, SCHEDULE)])
@pytest.mark.parametrize(("suffix", "start"), [(".svg", b"<svg"), (".html", b"<!doctype html>")])
def test_render_draws_either_problem(instance: Any, solution: Any, suffix: str, start: bytes, tmp_path: Path) -> None:
    assert FAMILY.render is not None
    FAMILY.render(instance, solution, tmp_path / f"p{suffix}")
    assert (tmp_path / f"p{suffix}").read_bytes().startswith(start)


def test_render_refuses_invalid_solutions(tmp_path: Path) -> None:
    assert FAMILY.render is not None
    other = type(PLAN)(experts=np.zeros((1, 1, 3), dtype=np.int32))
    with pytest.raises(SolutionError, match="hand"):
        FAMILY.render(PLACEMENT, other, tmp_path / "p.svg")
    assert not (tmp_path / "p.svg").exists()


def test_further_pictures_are_of_placements_alone(tmp_path: Path) -> None:
    assert len(FAMILY.pictures) == 3
    for number, draw in enumerate(FAMILY.pictures.values()):
        draw(PLACEMENT, PLAN, tmp_path / f"{number}.svg")
        assert (tmp_path / f"{number}.svg").read_bytes().startswith(b"<svg")
        draw(CACHE, SCHEDULE, tmp_path / f"cache{number}.svg")
        assert not (tmp_path / f"cache{number}.svg").exists()
    games: list[Family] = [get_family("moe:cache")]
    assert not games[0].pictures
