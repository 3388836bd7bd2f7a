from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.structured import canonical
from schedrl.experiments.measurement import checked_objectives, find_schedulers
from schedrl.experiments.reproduce.heft_adversary import Case, Found, chain, main, perturbed, search, verdicts_of

PAIR = ("socdag/heft", "socdag/fastest")


def test_chain_and_every_step_stay_within_the_weights() -> None:
    rng = np.random.default_rng(0)
    case = chain(rng)
    assert 3 <= len(case.cost) <= 5 and 3 <= len(case.speed) <= 5
    assert np.argwhere(case.edge).tolist() == [[k, k + 1] for k in range(len(case.cost) - 1)]
    for _ in range(500):
        case = perturbed(case, rng)
        for weights in (case.cost, case.volume, case.speed, case.bandwidth):
            assert weights.min() >= 0.1 and weights.max() <= 1.0
        assert not np.tril(case.edge).any()
        assert np.array_equal(case.bandwidth, case.bandwidth.T)
        assert case.instance("case").tasks == len(case.cost)


def test_instance_by_hand() -> None:
    case = Case(
        cost=np.array([0.5, 1.0]),
        volume=np.array([[0.0, 0.4], [0.0, 0.0]]),
        edge=np.array([[False, True], [False, False]]),
        speed=np.array([1.0, 0.5]),
        bandwidth=np.array([[1.0, 0.2], [0.2, 1.0]]),
    )
    instance = case.instance("hand")
    assert instance.flat.duration.tolist() == [[0.5, 1.0], [1.0, 2.0]]
    # 0.4 bytes at 0.2 bytes per second.
    assert instance.links[0, 0, 1] + 0.4 * instance.links[1, 0, 1] == pytest.approx(2.0)


def test_search_finds_a_trap_for_heft() -> None:
    schedulers, _ = find_schedulers(PAIR, canonical())
    found = search(PAIR, schedulers, np.random.default_rng(3), 200, 1)
    assert found.ratio >= 1.5
    instance = found.case.instance(found.name)
    ours, theirs = (checked_objectives(schedulers[name], instance)["makespan"] for name in PAIR)
    assert ours / theirs == pytest.approx(found.ratio)


def test_verdicts_by_hand() -> None:
    case = chain(np.random.default_rng(0))
    back = Found(first=PAIR[1], second=PAIR[0], case=case, ratio=1.2)
    found = [Found(first=PAIR[0], second=PAIR[1], case=case, ratio=4.5), back]
    trap, every = verdicts_of(found)
    assert (trap.measured, trap.verdict) == ("4.50 times", "confirmed")
    assert every.verdict == "confirmed but for fastest"


def test_main_writes_instances_that_read_back(tmp_path: Path) -> None:
    folders = ["--out", str(tmp_path), "--instances", str(tmp_path / "data")]
    names = "socdag/heft,socdag/fastest,socdag/mct"
    main([*folders, "--iterations", "60", "--restarts", "1", "--keep", "1", "--schedulers", names])
    with (tmp_path / "heft_adversary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    kept = [row for row in rows if row["file"]]
    assert {row["scheduler"] for row in kept} <= {"socdag/heft", "socdag/fastest", "socdag/mct"}
    schedulers, _ = find_schedulers([row["scheduler"] for row in kept], canonical())
    for row in kept:
        path = tmp_path / "data" / row["file"]
        assert path.stat().st_size < 8192
        instance = SocDagInstance.from_json(path.read_text(), source=path.name)
        makespan = checked_objectives(schedulers[row["scheduler"]], instance)["makespan"]
        assert makespan == pytest.approx(float(row["makespan"]), rel=1e-5)
