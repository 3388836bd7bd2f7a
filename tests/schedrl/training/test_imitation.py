from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from schedrl.errors import ConfigError
from schedrl.families import get_family
from schedrl.policies.network import NetworkConfig, PolicyNetwork
from schedrl.policies.network_policy import NetworkPolicy
from schedrl.rollout import play
from schedrl.schedulers import get_scheduler
from schedrl.training.config import parse_config
from schedrl.training.imitation import ImitationConfig, Lesson, demonstrate, imitate
from schedrl.training.run import train

SHOP = Lesson(teacher="jobshop/mwkr", generator="uniform", size={"jobs": 5, "machines": 5}, count=24)
DAG = Lesson(teacher="socdag/heft", generator="topcuoglu", size={"tasks": 12, "devices": 3}, count=40)
PLAN = {"mode": "plan", "window": 4}


def _network(family: str, seed: int = 0) -> PolicyNetwork:
    torch.manual_seed(seed)
    return PolicyNetwork(get_family(family).features, NetworkConfig(node_width=16, candidate_width=32, layers=1))


@pytest.mark.parametrize(("name", "lesson", "options"), [("jobshop", SHOP, {}), ("socdag", DAG, PLAN)])
def test_demonstrations_lead_to_the_teachers_schedule_or_better(
    name: str, lesson: Lesson, options: dict[str, Any]
) -> None:
    family = get_family(name)
    shown = demonstrate(family, [lesson], options, discount=1.0, rng=np.random.default_rng(0))
    assert (shown.action < shown.counts).all() and (shown.action >= 0).all()
    assert len(shown.graphs) == lesson.count
    rng = np.random.default_rng(0)
    teacher = get_scheduler(lesson.teacher).make()
    for number in range(lesson.count):
        instance = family.generators[lesson.generator](rng, **lesson.size)
        value = teacher.schedule(instance, time_limit_s=1.0, rng=rng).objective
        simulator = family.make_simulator([instance], 1, **options)
        reward, done = np.zeros(1, dtype=np.float32), np.zeros(1, dtype=np.bool_)
        earned = 0.0
        for action in shown.action[shown.graph == number]:
            simulator.step(np.array([action], dtype=np.int32), reward, done)
            earned += float(reward[0])
        assert done[0]
        assert value is not None
        assert simulator.objective(0) <= value + 1e-9  # what a teacher leaves idle, the simulator closes
        assert shown.returns[shown.graph == number][0] == pytest.approx(earned, abs=1e-5)


def test_a_network_comes_to_agree_with_its_teacher_and_plays_like_it() -> None:
    family = get_family("socdag")
    rng = np.random.default_rng(1)
    config = ImitationConfig(lessons=(DAG,), epochs=12, learning_rate=3e-3, minibatch_instances=8)
    shown = demonstrate(family, config.lessons, PLAN, discount=1.0, rng=rng)
    network = _network("socdag")
    agreement = imitate(network, shown, config, rng)
    assert agreement[0] < 0.6 < 0.75 < agreement[-1]
    unseen = [family.generators["topcuoglu"](rng, tasks=12, devices=3) for _ in range(30)]
    means = []
    for student in (network, _network("socdag", seed=5)):
        simulator = family.make_simulator(unseen, len(unseen), **PLAN)
        policy = NetworkPolicy(student)
        policy.begin([family.static_graph(instance) for instance in unseen])
        play(policy, family, simulator, rng=None)
        means.append(np.mean([simulator.objective(row) for row in range(len(unseen))]))
    heft = get_scheduler("socdag/heft").make()
    taught = np.mean([heft.schedule(instance, time_limit_s=1.0, rng=rng).objective or 0.0 for instance in unseen])
    assert means[0] < 1.08 * taught < means[1]


def test_a_run_warms_up_once_and_can_start_from_the_weights_of_another(tmp_path: Path, tiny: dict[str, Any]) -> None:
    lesson = {"teacher": "jobshop/spt-twkr", "generator": "uniform", "size": {"jobs": 6, "machines": 6}, "count": 8}
    taught = tiny | {"total_decisions": 512, "imitation": {"lessons": [lesson], "epochs": 2}}
    train(parse_config(taught), tmp_path / "taught", progress=False)
    report = json.loads((tmp_path / "taught" / "imitation.json").read_text())
    assert report["decisions"] > 8 * 5
    assert len(report["agreement_by_epoch"]) == 2
    again = tiny | {"total_decisions": 512, "initial_weights": str(tmp_path / "taught" / "best.pt")}
    train(parse_config(again), tmp_path / "again", progress=False)
    first = [(tmp_path / run / "curve.csv").read_text().splitlines()[1].split(",")[2] for run in ("taught", "again")]
    best = torch.load(tmp_path / "taught" / "best.pt", weights_only=True)
    assert float(first[1]) == pytest.approx(np.mean(list(best["validation"].values())))


def test_bad_lessons_and_weights_are_refused(tmp_path: Path, tiny: dict[str, Any]) -> None:
    family = get_family("jobshop")
    wrong = Lesson(teacher="jobshop/spt", generator="uniforn", size={}, count=1)
    with pytest.raises(ConfigError, match=r"imitation\.lessons\[0\]\.generator: 'uniforn', expected one of uniform"):
        demonstrate(family, [wrong], {}, discount=1.0, rng=np.random.default_rng(0))
    with pytest.raises(ConfigError, match=r"imitation\.lessons: no instances"):
        demonstrate(family, [], {}, discount=1.0, rng=np.random.default_rng(0))
    with pytest.raises(ConfigError, match=r"no-such\.pt"):
        train(parse_config(tiny | {"initial_weights": "no-such.pt"}), tmp_path / "run", progress=False)
    with pytest.raises(ConfigError, match="teecher"):
        parse_config(tiny | {"imitation": {"lessons": [{"teecher": "jobshop/spt"}]}})
