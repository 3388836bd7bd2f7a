"""The configurations of the shipped router parse and draw; nothing is trained here."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer import BadParameter

from schedrl.envs.routing.fleets import TRAINING_DEVICES
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.experiments.train_routing import POLICIES, main
from schedrl.families import get_family

pytest.importorskip("pydantic")
CONFIGS = resources.files("schedrl.experiments") / "configs"


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_has_a_configuration_that_fits_the_family(name: str) -> None:
    from schedrl.training.config import parse_config

    config = parse_config(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")), source=name)
    family = get_family(config.family)
    assert family.name == "routing"
    for item in (*config.instances, *config.validation.instances):
        if item.generator == "mooncake-first-half" and not os.environ.get("SCHEDRL_DATA"):
            continue
        instance = family.generators[item.generator](np.random.default_rng(0), **item.size)
        assert isinstance(instance, RoutingInstance)
        # Evaluation has fleets with types that training never draws.
        assert {serving.device for serving in instance.fleet} <= set(TRAINING_DEVICES)


def test_configurations_of_the_family_are_those_of_the_policies() -> None:
    found = {path.name.removesuffix(".yaml") for path in CONFIGS.iterdir() if path.name.startswith("routing")}
    assert found == set(POLICIES)


def test_an_unknown_policy_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(BadParameter, match=f"'router', expected one of {', '.join(POLICIES)}"):
        main(out=tmp_path, only=["routing", "router"])
    assert not list(tmp_path.iterdir())
