"""The configurations of the shipped policies parse; nothing is trained here."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer import BadParameter

from schedrl.experiments.train_moe import POLICIES, main
from schedrl.families import get_family

pytest.importorskip("pydantic")
CONFIGS = resources.files("schedrl.experiments") / "configs"


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_has_a_configuration_that_fits_the_family(name: str) -> None:
    from schedrl.training.config import parse_config

    config = parse_config(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")), source=name)
    family = get_family(config.family)
    assert family.name.partition(":")[0] == "moe"
    for item in (*config.instances, *config.validation.instances):
        instance = family.generators[item.generator](np.random.default_rng(0), **item.size)
        family.make_simulator([instance], 1, **config.simulator)


def test_configurations_of_the_family_are_those_of_the_policies() -> None:
    found = {path.name.removesuffix(".yaml") for path in CONFIGS.iterdir() if path.name.startswith("moe")}
    assert found == set(POLICIES)


def test_an_unknown_policy_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(BadParameter, match=f"'moe-cash', expected one of {', '.join(POLICIES)}"):
        main(out=tmp_path, only=["moe", "moe-cash"])
    assert not list(tmp_path.iterdir())
