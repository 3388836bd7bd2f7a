from pathlib import Path
from typing import Any

import pytest
import yaml

from schedrl.errors import ConfigError
from schedrl.training.config import load_config, parse_config


def test_defaults_and_round_trip(tiny: dict[str, Any]) -> None:
    config = parse_config(tiny)
    assert (config.ppo.gae_lambda, config.ppo.discount, config.device) == (0.97, 1.0, "cpu")
    assert parse_config(yaml.safe_load(config.to_yaml())) == config


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("ppo.learning_rte", 1e-3, r"field ppo\.learning_rte: .*not permitted|field ppo.learning_rte: Unexpected"),
        ("network.depth", 3, "network.depth"),
        ("instances.0.sise", {}, "instances"),
        ("total_decisions", "many", "field total_decisions"),
        ("total_decisions", 0, "field total_decisions: 0, expected at least 1"),
        ("family", "jobshp", "unknown family"),
        ("group_size", 7, "7 does not divide environments 32"),
        ("device", "tpu", "field device"),
    ],
)
def test_bad_values_name_the_field(tmp_path: Path, tiny: dict[str, Any], key: str, value: Any, message: str) -> None:
    path = tmp_path / "config.yaml"
    if key.startswith("instances"):
        tiny["instances"][0]["sise"] = value
        path.write_text(yaml.safe_dump(tiny))
        with pytest.raises(ConfigError, match=r"instances\.0\.sise"):
            load_config(path)
        return
    path.write_text(yaml.safe_dump(tiny))
    with pytest.raises(Exception, match=message) as error:
        load_config(path, {key: value})
    assert "\n" not in str(error.value)


def test_override_reaches_nested_fields(tmp_path: Path, tiny: dict[str, Any]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tiny))
    assert load_config(path, {"ppo.learning_rate": 0.5, "seed": 9}).ppo.learning_rate == 0.5


def test_unreadable_yaml_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("family: [jobshop\nseed: 1")
    with pytest.raises(ConfigError, match="cannot be read as YAML") as error:
        load_config(path)
    assert "\n" not in str(error.value)
    path.write_text("- 1\n")
    with pytest.raises(ConfigError, match="expected a mapping"):
        load_config(path)


def test_shipped_configs_are_valid() -> None:
    from importlib import resources

    configs = [
        file for file in (resources.files("schedrl.experiments") / "configs").iterdir() if file.name.endswith("yaml")
    ]
    assert configs
    for file in configs:
        assert load_config(Path(str(file))).total_decisions > 0
