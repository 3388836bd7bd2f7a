from __future__ import annotations

import numpy as np
import pytest

from schedrl.baselines.socdag.heuristics import HEURISTICS, plan
from schedrl.envs.socdag.adversarial import adversarial, adversarial_instances
from schedrl.errors import ConfigError


def test_packaged_instances_are_small_and_named_after_their_pair() -> None:
    instances = adversarial_instances()
    assert len({instance.name for instance in instances}) == len(instances) >= 10
    for instance in instances:
        assert 3 <= instance.tasks <= 5 and 3 <= instance.devices <= 5
        assert instance.static


def test_each_is_bad_for_the_one_and_good_for_the_other() -> None:
    worst: dict[str, float] = {}
    for instance in adversarial_instances():
        first, _, second = instance.name.removeprefix("adversarial-").partition("-vs-")
        if {first, second} <= set(HEURISTICS):
            ratio = plan(instance, first).latency / plan(instance, second).latency
            assert ratio > 1.0
            worst[first] = max(ratio, worst.get(first, 0.0))
    assert worst["heft"] >= 2.0


def test_variations_stay_near_their_original() -> None:
    by_name = {instance.name: instance for instance in adversarial_instances()}
    varied = adversarial(np.random.default_rng(1), against="heft", spread=0.2)
    original = by_name[varied.name]
    assert varied.name.startswith("adversarial-heft-vs-")
    share = varied.flat.duration / original.flat.duration
    assert 0.8 <= share.min() < share.max() <= 1.2
    exact = adversarial(np.random.default_rng(1), against="heft", spread=0.0)
    assert exact == by_name[exact.name]


def test_every_packaged_size_can_be_drawn_and_nothing_of_another_size() -> None:
    rng, names = np.random.default_rng(0), set()
    for tasks, devices in {(instance.tasks, instance.devices) for instance in adversarial_instances()}:
        drawn = [adversarial(rng, tasks=tasks, devices=devices) for _ in range(60)]
        assert {(instance.tasks, instance.devices) for instance in drawn} == {(tasks, devices)}
        names |= {instance.name for instance in drawn}
    assert names == {instance.name for instance in adversarial_instances()}


def test_noise_changes_nothing_else() -> None:
    calm, noisy = (adversarial(np.random.default_rng(5), noise_sigma=sigma) for sigma in (0.0, 0.5))
    assert calm.flat.duration.tolist() == noisy.flat.duration.tolist()
    assert noisy.noise is not None and noisy.noise.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spread": 1.0}, "option spread: 1.0, expected 0 to below 1"),
        ({"noise_sigma": -1.0}, "option noise_sigma: -1.0"),
        ({"against": "nobody"}, "option against: 'nobody', expected one of cpop, fastest, heft, "),
        ({"tasks": 9}, "options tasks, devices: 9 x 5, expected one of 3 x 3, 3 x 5, 4 x 3, 4 x 5, 5 x 3, "),
        ({"against": "min-min", "devices": 3}, "options tasks, devices: 5 x 3, expected one of 3 x 3, 4 x 5"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        adversarial(np.random.default_rng(0), **options)  # type: ignore[arg-type]
