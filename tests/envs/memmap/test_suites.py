"""The named sets of programs: what is in them, and that the seeded ones stay as they are."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from schedrl.devices.memories import get_memory_device
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.programs import PROGRAMS, load_program
from schedrl.envs.memmap.suites import CAPACITIES_MIB, SUITES

SIZES = {"models": 30, "layered": 20, "arbitrary": 20, "demo": 4}
NETWORKS = ("resnet50", "gpt2-small", "bert-base", "alexnet", "unet")


def instances(suite: str) -> list[MemoryMapInstance]:
    loaded = [entry.instance for entry in SUITES[suite].load()]
    assert all(isinstance(instance, MemoryMapInstance) for instance in loaded)
    return loaded  # type: ignore[return-value]


@pytest.mark.parametrize("suite", SIZES)
def test_names_numbers_and_loading_once(suite: str) -> None:
    found = SUITES[suite]
    assert found.name == suite and found.summary and found.source
    names = [instance.name for instance in instances(suite)]
    assert len(names) == len(set(names)) == SIZES[suite]
    assert found.load() is found.load()
    assert all(entry.lower_bound is None and entry.best_known is None for entry in found.load())


def test_names_of_instances_differ_between_suites_of_programs() -> None:
    names = [instance.name for suite in ("models", "layered", "arbitrary") for instance in instances(suite)]
    assert len(set(names)) == 70


def test_models_are_five_networks_twice_at_three_capacities() -> None:
    assert CAPACITIES_MIB == (16, 48, 128)
    expected = [f"{net}-{mode}-{mib}mib" for net in NETWORKS for mode in ("infer", "train") for mib in CAPACITIES_MIB]
    assert [instance.name for instance in instances("models")] == expected
    device = get_memory_device("tpu-v4i")
    for instance in instances("models"):
        capacity = int(instance.name.rpartition("-")[2].removesuffix("mib"))
        assert instance.memory == device.with_capacity(capacity * 2**20)
        assert instance.size_label == f"{capacity} MiB"


def test_a_cell_is_the_packaged_program() -> None:
    cell = instances("models")[0]
    assert cell.with_memory(cell.memory, name="x") == load_program("resnet50-infer", cell.memory).with_memory(
        cell.memory, name="x"
    )
    assert all(PROGRAMS[instance.name.rpartition("-")[0]].evaluation for instance in instances("models"))


def test_layered_alternates_inference_and_training_and_grows() -> None:
    layers = [8 + 2 * k for k in range(20)]
    assert [instance.ops for instance in instances("layered")] == [
        3 * count - 1 if k % 2 else count for k, count in enumerate(layers)
    ]


def test_arbitrary_has_one_or_two_fast_layers() -> None:
    assert [(instance.ops, instance.layers) for instance in instances("arbitrary")] == [
        (6 + k, 2 + k % 2) for k in range(20)
    ]


def test_demo_is_three_networks_at_16_mib_and_a_training_step() -> None:
    *packaged, drawn = instances("demo")
    assert [instance.name for instance in packaged] == [
        "resnet50-infer-16mib",
        "gpt2-small-infer-16mib",
        "unet-train-16mib",
    ]
    assert packaged[0] == instances("models")[0]
    assert (drawn.ops, drawn.name.startswith("layered-16-")) == (3 * 16 - 1, True)


def test_seeded_suites_stay_as_they_are() -> None:
    # Results in reports are comparable only as long as these digests hold.
    digests = {}
    for suite in ("layered", "arbitrary"):
        digest = hashlib.sha256()
        for instance in instances(suite):
            for array in (instance.size, instance.access_buffer, instance.access_op, np.round(instance.flops)):
                digest.update(array.tobytes())
            for layer in instance.memory.layers:
                digest.update(f"{layer.capacity_bytes} {layer.read_bytes_per_s:.6e}".encode())
        digests[suite] = digest.hexdigest()[:16]
    assert digests == {"layered": "e2b4a1beac260a01", "arbitrary": "dc59aafb06e9aa1f"}
