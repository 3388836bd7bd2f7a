from __future__ import annotations

from pathlib import Path

import pytest

from schedrl.cli.names import find_instance, find_schedulers, find_suites
from schedrl.errors import UnknownNameError
from schedrl.families import family_names, get_family
from schedrl.schedulers import schedulers_of

JOBSHOP, SOCDAG = get_family("jobshop"), get_family("socdag")


@pytest.mark.parametrize("name", family_names())
def test_all_stands_for_every_scheduler(name: str) -> None:
    specs = find_schedulers(get_family(name), ["all"])
    assert [spec.name for spec in specs] == list(schedulers_of(name))
    assert f"{name}/ppo" in {spec.name for spec in specs}


def test_all_beside_other_names_is_a_name_like_any() -> None:
    with pytest.raises(UnknownNameError, match="unknown scheduler 'all'"):
        find_schedulers(SOCDAG, ["all", "heft"])


def test_one_suite_keeps_its_name_and_its_entries_need_none() -> None:
    name, entries = find_suites(SOCDAG, "cholesky")
    assert name == "cholesky"
    assert [(entry.instance.name, entry.suite) for entry in entries] == [(f"cholesky-{k}", "") for k in (4, 6, 8)]


def test_entries_of_several_suites_know_theirs(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "own.json").write_text(find_instance(SOCDAG, "lu-4").instance.to_json(), encoding="utf-8")
    name, entries = find_suites(SOCDAG, f"canonical, cholesky,{folder},")
    assert name == "canonical,cholesky,mine"
    assert [(entry.suite, entry.instance.name) for entry in entries] == [
        ("canonical", "canonical"),
        ("cholesky", "cholesky-4"),
        ("cholesky", "cholesky-6"),
        ("cholesky", "cholesky-8"),
        ("mine", "lu-4"),
    ]
    assert (entries[0].lower_bound, entries[0].best_known, entries[4].best_known) == (73.0, 73.0, None)
    with pytest.raises(UnknownNameError, match="unknown suite, file or folder 'choleski'; did you mean cholesky"):
        find_suites(SOCDAG, "canonical,choleski")


def test_a_file_whose_name_holds_a_comma_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a,b.txt"
    path.write_text("1 1\n0 3\n", encoding="utf-8")
    name, entries = find_suites(JOBSHOP, str(path))
    assert (name, len(entries)) == ("a,b", 1)


def test_names_of_instances_may_hold_dots() -> None:
    assert find_instance(SOCDAG, "3pe-scale25-sigma0.2-seed3").instance.name == "3pe-scale25-sigma0.2-seed3"
    named = find_instance(SOCDAG, "stream-3pe/3pe-scale25-sigma0.5-seed0")
    assert named.instance.name == "3pe-scale25-sigma0.5-seed0"
    with pytest.raises(FileNotFoundError, match="no such file, nor SUITE/INSTANCE"):
        find_instance(SOCDAG, "graph.json")
