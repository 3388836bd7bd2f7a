from __future__ import annotations

import copy
import math
import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from schedrl.devices import Device, Link, Platform, PowerState
from schedrl.errors import ConfigError

GPU = Device(
    name="gpu",
    flops_per_s={"bf16": 100e12, "fp8": 200e12},
    memory_bytes=80e9,
    memory_bandwidth_bytes_per_s=2e12,
    mfu=0.5,
    mbu=0.8,
)


def test_a_link_takes_its_latency_plus_bytes_over_bandwidth() -> None:
    link = Link(latency_s=10e-6, bandwidth_bytes_per_s=50e9)
    assert link.transfer_s(100e6) == pytest.approx(10e-6 + 2e-3)
    assert link.transfer_s(0) == 0.0


def test_the_roofline_takes_the_longer_of_computing_and_moving_bytes() -> None:
    assert GPU.operation_s(1e12, 0) == pytest.approx(1e12 / 50e12)
    assert GPU.operation_s(0, 1.6e9) == pytest.approx(1.6e9 / 1.6e12)
    assert GPU.operation_s(1e12, 1.6e9) == pytest.approx(0.02)
    assert GPU.operation_s(1e12, 1.6e9, precision="fp8") == pytest.approx(0.01)


def test_the_smooth_roofline_lies_between_the_longer_time_and_the_sum() -> None:
    compute_s, memory_s = 3e-3, 4e-3
    flops, moved = compute_s * 50e12, memory_s * 1.6e12
    assert GPU.operation_s(flops, moved, norm=2) == pytest.approx(5e-3)
    assert GPU.operation_s(flops, moved, norm=1) == pytest.approx(7e-3)
    assert GPU.operation_s(flops, moved, norm=math.inf) == pytest.approx(4e-3)
    assert GPU.operation_s(1e-300, 0, norm=2) > 0.0, "tiny work must not underflow to no time"


def test_every_operation_pays_the_overhead() -> None:
    slow = Device(name="slow", flops_per_s={"bf16": 1e12}, operation_overhead_s=20e-6)
    assert slow.operation_s(1e6, 0) == pytest.approx(21e-6)
    assert slow.operation_s(0, 0) == pytest.approx(20e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"memory_bytes": -1}, "device d: field memory_bytes: -1, expected a positive number"),
        ({"memory_bytes": 0}, "device d: field memory_bytes: 0, expected a positive number"),
        ({"flops_per_s": {"bf16": math.nan}}, r"device d: field flops_per_s\[bf16\]: nan"),
        ({"memory_bandwidth_bytes_per_s": math.inf}, "field memory_bandwidth_bytes_per_s: inf"),
        ({"mfu": 1.2}, "field mfu: 1.2, expected at most 1"),
        ({"mbu": 0}, "field mbu: 0, expected a positive number"),
        ({"price_usd_per_h": -0.5}, "field price_usd_per_h: -0.5, expected 0 or a positive number"),
        ({"operation_overhead_s": True}, "field operation_overhead_s: True"),
        ({"idle_power_w": -0.1}, "device d: field idle_power_w: -0.1, expected 0 or a positive number"),
        ({"idle_power_w": math.nan}, "device d: field idle_power_w: nan"),
        ({"memory_bytes": 10**400}, "device d: field memory_bytes: 1000"),
        ({"capacity": 0}, "device d: field capacity: 0, expected an integer of at least 1"),
        ({"capacity": 1.5}, "device d: field capacity: 1.5, expected an integer"),
        ({"capacity": True}, "device d: field capacity: True, expected an integer"),
    ],
)
def test_a_device_refuses_figures_without_meaning(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Device(name="d", **fields)


def test_time_models_say_which_figure_is_missing() -> None:
    bare = Device(name="bare")
    with pytest.raises(ConfigError, match="no figure for 'bf16', known: none"):
        bare.operation_s(1.0, 0.0)
    with pytest.raises(ConfigError, match="field memory_bandwidth_bytes_per_s: not set"):
        bare.operation_s(0.0, 1.0)
    with pytest.raises(ConfigError, match="field flops: -1"):
        GPU.operation_s(-1, 0)
    with pytest.raises(ConfigError, match=r"norm: 0\.5, expected at least 1"):
        GPU.operation_s(1, 1, norm=0.5)


def test_a_device_idles_for_nothing_and_runs_one_task_at_a_time_unless_told_otherwise() -> None:
    assert (GPU.idle_power_w, GPU.capacity) == (0.0, 1)
    assert Device(name="d", idle_power_w=0.5, capacity=3).capacity == 3


@pytest.mark.parametrize("fields", [{"latency_s": -1e-6}, {"bandwidth_bytes_per_s": 0.0}, {"latency_s": math.nan}])
def test_a_link_refuses_figures_without_meaning(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"link: field {next(iter(fields))}"):
        Link(**({"latency_s": 0.0, "bandwidth_bytes_per_s": 1e9} | fields))
    with pytest.raises(ConfigError, match="transferred_bytes"):
        Link(latency_s=0.0, bandwidth_bytes_per_s=1e9).transfer_s(-1)


def test_links_are_directed_and_kept_per_ordered_pair() -> None:
    up, down = Link(latency_s=1e-6, bandwidth_bytes_per_s=1e9), Link(latency_s=2e-6, bandwidth_bytes_per_s=2e9)
    cpu = Device(name="cpu")
    platform = Platform(devices=(GPU, cpu), counts=(4, 1), links={("cpu", "gpu"): up, ("gpu", "cpu"): down})
    assert platform.link("cpu", "gpu") is up
    assert platform.link("gpu", "cpu") is down
    with pytest.raises(ConfigError, match="no link from 'gpu' to 'gpu'"):
        platform.link("gpu", "gpu")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"devices": (), "counts": ()}, "field devices: empty"),
        ({"devices": (GPU, GPU), "counts": (1, 1)}, "listed twice among gpu, gpu"),
        ({"counts": (1, 2)}, "field counts: 2 values for 1 device types"),
        ({"counts": (0,)}, r"field counts\[gpu\]: 0, expected an integer of at least 1"),
        ({"links": {("gpu", "tpu"): Link(latency_s=0.0, bandwidth_bytes_per_s=1.0)}}, "unknown device type 'tpu'"),
        ({"memory": "gpu"}, "field memory: 'gpu' is a device type too"),
    ],
)
def test_a_platform_refuses_what_does_not_fit_together(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Platform(**({"devices": (GPU,), "counts": (1,)} | fields))


def test_links_may_start_and_end_at_a_shared_memory() -> None:
    link = Link(latency_s=0.0, bandwidth_bytes_per_s=1.0)
    links = {("gpu", "dram"): link, ("dram", "gpu"): link}
    assert Platform(devices=(GPU,), counts=(1,), links=links, memory="dram").link("dram", "gpu") is link
    with pytest.raises(ConfigError, match="unknown device type 'dram'"):
        Platform(devices=(GPU,), counts=(1,), links=links)


def test_pickled_devices_and_platforms_come_back_equal_and_unchangeable() -> None:
    link = Link(latency_s=1e-6, bandwidth_bytes_per_s=5e9)
    cpu = Device(name="cpu", power_states=(PowerState(name="full", power_w=65.0),), capacity=4, price_usd_per_h=0.1)
    links = {("gpu", "dram"): link, ("dram", "gpu"): link, ("cpu", "dram"): link, ("dram", "cpu"): link}
    platform = Platform(devices=(GPU, cpu), counts=(2, 1), links=links, memory="dram")
    for item in (GPU, cpu, link, platform):
        assert pickle.loads(pickle.dumps(item)) == item
        assert copy.deepcopy(item) == item
    again = pickle.loads(pickle.dumps(platform))
    assert list(again.links) == list(platform.links)
    with pytest.raises(TypeError):
        again.links["cpu", "gpu"] = link
    with pytest.raises(TypeError):
        again.devices[0].flops_per_s["bf16"] = 1.0


def test_devices_and_platforms_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        GPU.mfu = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        GPU.flops_per_s["bf16"] = 1.0  # type: ignore[index]
    with pytest.raises(ConfigError, match="power state idle: field speed: 0"):
        PowerState(name="idle", power_w=50.0, speed=0.0)
