from __future__ import annotations

import json
import re
from typing import Any

import pytest

from schedrl.devices import Device, Link, Platform, PowerState, platform_from_dict, platform_to_dict
from schedrl.errors import ConfigError

PLATFORM = Platform(
    devices=(
        Device(
            name="cpu",
            flops_per_s={"fp32": 1e12},
            memory_bytes=8e9,
            power_states=(PowerState(name="high", power_w=4.0), PowerState(name="low", power_w=1.0, speed=0.5)),
            idle_power_w=0.25,
            price_usd_per_h=0.1,
            capacity=2,
        ),
        Device(name="npu"),
    ),
    counts=(2, 1),
    links={
        ("cpu", "dram"): Link(latency_s=1e-6, bandwidth_bytes_per_s=1e9),
        ("dram", "npu"): Link(latency_s=0.0, bandwidth_bytes_per_s=2e9),
    },
    memory="dram",
)
PLAIN: dict[str, Any] = {
    "devices": [{"name": "a", "count": 2}, {"name": "b"}],
    "links": [{"source": "a", "target": "b", "latency_s": 0.5, "bandwidth_bytes_per_s": 4}],
}


def test_a_platform_survives_plain_data_and_json() -> None:
    data = platform_to_dict(PLATFORM)
    assert platform_from_dict(data) == PLATFORM
    assert platform_from_dict(json.loads(json.dumps(data))) == PLATFORM


def test_defaults_are_neither_written_nor_needed() -> None:
    assert platform_to_dict(PLATFORM)["devices"][1] == {"name": "npu", "count": 1}
    platform = platform_from_dict(PLAIN)
    assert platform.counts == (2, 1)
    assert platform.memory is None
    assert platform.link("a", "b") == Link(latency_s=0.5, bandwidth_bytes_per_s=4)
    assert platform_from_dict({"devices": [{"name": "a"}]}).links == {}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"colour": 1}, "mine: field colour: unknown, expected devices, links, memory"),
        ({"devices": None}, "mine: field devices: expected a list, got None"),
        ({"devices": []}, "field devices: empty"),
        ({"devices": [3]}, "mine: field devices[0]: expected a table of fields, got 3"),
        ({"devices": [{"count": 1}]}, "mine: field devices[0].name: None, expected a name"),
        ({"devices": [{"name": "a", "cores": 1}]}, "mine: field devices[0]: field cores: unknown"),
        ({"devices": [{"name": "a", "count": "2"}]}, "field counts[a]: '2', expected an integer"),
        ({"devices": [{"name": "a", "mfu": 2}]}, "mine: field devices[0]: device a: field mfu: 2, expected at most 1"),
        ({"devices": [{"name": "a", "idle_power_w": -1}]}, "device a: field idle_power_w: -1"),
        ({"devices": [{"name": "a", "capacity": 0}]}, "device a: field capacity: 0"),
        ({"devices": [{"name": "a", "power_states": 1}]}, "field devices[0]: field power_states: expected a list"),
        ({"devices": [{"name": "a", "power_states": [{}]}]}, "field devices[0].power_states[0]: "),
        ({"links": [{"target": "b"}]}, "mine: field links[0]: fields source and target: (None, 'b')"),
        ({"links": [{"source": "a", "target": "b", "latency_s": 0}]}, "mine: field links[0]: "),
        ({"links": [PLAIN["links"][0] | {"latency_s": None}]}, "mine: field links[0]: link: field latency_s: missing"),
        ({"links": [PLAIN["links"][0] | {"latency_s": 10**400}]}, "field links[0]: link: field latency_s: 1000"),
        ({"links": [PLAIN["links"][0] | {"target": "c"}]}, "unknown device type 'c'"),
        ({"memory": 3}, "mine: field memory: 3, expected a name or null"),
    ],
)
def test_bad_data_is_refused_in_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        platform_from_dict(PLAIN | fields, "mine")
    assert "\n" not in str(caught.value)
