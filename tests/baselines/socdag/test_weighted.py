from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from schedrl.baselines.socdag.heuristics import plan
from schedrl.baselines.socdag.list_scheduling import follow
from schedrl.baselines.socdag.weighted import SCHEDULERS, WeightedHeft, weighted_plan
from schedrl.devices import Device, Link, Platform, PowerState
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.soc import stream_16pe
from schedrl.envs.socdag.solution import check, objectives
from schedrl.envs.socdag.structured import canonical
from schedrl.envs.socdag.task_graph import TaskGraph
from schedrl.envs.socdag.workflows import agentic


def _two_devices(preference: list[float]) -> SocDagInstance:
    """Return two tasks in a row: 2 s on a fast device at 10 W or 4 s at 3 W, 6 s on a cheap slow one at 1 W."""
    fast = Device(
        name="fast",
        power_states=(PowerState(name="full", power_w=10.0), PowerState(name="half", power_w=3.0, speed=0.5)),
        price_usd_per_h=3600.0,
    )
    slow = Device(name="slow", power_states=(PowerState(name="full", power_w=1.0),), price_usd_per_h=36.0)
    link = Link(latency_s=0.0, bandwidth_bytes_per_s=1.0)
    return SocDagInstance(
        name="two",
        platform=Platform(devices=(fast, slow), counts=(1, 1), links={("fast", "slow"): link, ("slow", "fast"): link}),
        graphs=(
            TaskGraph(
                name="row",
                task_names=("a", "b"),
                duration=np.array([[2.0, 6.0], [2.0, 6.0]]),
                edge=np.array([[0, 1]]),
                edge_bytes=np.array([1.0]),
            ),
        ),
        preference=np.array(preference),
    )


def test_hand_worked_choices() -> None:
    # Options per task: fast (2 s, 20 J, 2 USD), half speed (4 s, 12 J, 4 USD), slow (6 s, 6 J, 0.06 USD).
    latency = weighted_plan(_two_devices([1.0, 0.0, 0.0]))
    assert (latency.device.tolist(), latency.point.tolist(), latency.latency) == ([0, 0], [0, 0], 4.0)
    energy = weighted_plan(_two_devices([0.0, 1.0, 0.0]))
    assert (energy.device.tolist(), energy.latency) == ([1, 1], 12.0)
    # Means are 4 s and 12.67 J: weights 0.65 and 0.35 give a 0.325 + 0.553, 0.65 + 0.332, 0.975 + 0.166; the first
    # wins. With 0.4 and 0.6: 0.2 + 0.947, 0.4 + 0.568, 0.6 + 0.284; the last wins. With 0.5 each: 1.039, 0.974, 0.987.
    assert weighted_plan(_two_devices([0.65, 0.35, 0.0])).point.tolist() == [0, 0]
    assert weighted_plan(_two_devices([0.5, 0.5, 0.0])).point.tolist() == [1, 1]
    assert weighted_plan(_two_devices([0.4, 0.6, 0.0])).device.tolist() == [1, 1]
    values = objectives(_two_devices([0.5, 0.5, 0.0]), follow(_two_devices([0.5, 0.5, 0.0]), energy))
    assert values["energy_j"] == 12.0
    assert values["cost_usd"] == pytest.approx(0.12)


def test_cost_alone_takes_the_cheapest_option() -> None:
    assert weighted_plan(_two_devices([0.0, 0.0, 2.0])).device.tolist() == [1, 1]


@pytest.mark.parametrize(
    "instance",
    [canonical(), stream_16pe(np.random.default_rng(1), jobs=20, scale=80.0), agentic(np.random.default_rng(2))],
    ids=lambda instance: str(instance.name),
)
def test_all_weight_on_latency_is_heft(instance: SocDagInstance) -> None:
    ours, heft = weighted_plan(instance), plan(instance, "heft")
    assert ours.device.tolist() == heft.device.tolist()
    assert ours.start.tolist() == heft.start.tolist()


def _streams() -> list[SocDagInstance]:
    return [stream_16pe(np.random.default_rng(3), jobs=12, noise_sigma=0.3), agentic(np.random.default_rng(4))]


@pytest.mark.parametrize("weights", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)])
def test_schedules_pass_the_checker(weights: tuple[float, ...]) -> None:
    for instance in (
        stream_16pe(np.random.default_rng(3), jobs=12, noise_sigma=0.3),
        agentic(np.random.default_rng(4)),
    ):
        weighted = dataclasses.replace(instance, preference=np.array(weights, dtype=float))
        result = WeightedHeft().schedule(weighted, time_limit_s=1.0, rng=np.random.default_rng(0))
        assert result.solution is not None
        assert check(weighted, result.solution) == []


def test_weight_on_energy_saves_energy() -> None:
    stream = stream_16pe(np.random.default_rng(5), jobs=30, scale=300.0)
    energy = []
    for share in (0.0, 0.3, 1.0):
        weighted = dataclasses.replace(stream, preference=np.array([1.0 - share, share, 0.0]))
        result = WeightedHeft().schedule(weighted, time_limit_s=1.0, rng=np.random.default_rng(0))
        energy.append(objectives(weighted, result.solution)["energy_j"])
    assert energy[0] > energy[1] > energy[2]


def test_spec() -> None:
    assert [spec.name for spec in SCHEDULERS] == ["socdag/weighted-heft"]
