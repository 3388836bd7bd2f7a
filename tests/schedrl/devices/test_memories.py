from __future__ import annotations

from pathlib import Path

import pytest

from schedrl.devices import get_device, get_memory_device, load_memories, memory_device_from_dict
from schedrl.errors import ConfigError, UnknownNameError

PRESETS = ("tpu-v4i", "tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e", "h100-l2", "nnp-i", "esp32-s3")
MIB = 2**20


def test_the_presets_are_the_devices_of_the_reference() -> None:
    assert tuple(load_memories()) == PRESETS
    for name in PRESETS:
        device = get_memory_device(name)
        assert device.name == name
        assert device.supply == "idle"
        assert memory_device_from_dict(device.to_dict(), where="x") == device


def test_every_figure_states_its_kind_and_source() -> None:
    for entry in load_memories().values():
        assert len(entry.figures) == 1 + 2 * len(entry.device.layers)
        for figure in entry.figures.values():
            assert figure.kind in ("vendor", "fitted", "extrapolated")
            assert len(figure.source) > 10
            assert figure.value > 0


@pytest.mark.parametrize(
    ("name", "flops", "slow", "fast_mib"),
    [
        ("tpu-v4i", 138e12, 614e9, 128),
        ("tpu-v4", 275e12, 1.2e12, 128),
        ("tpu-v5e", 197e12, 819e9, 128),
        ("tpu-v5p", 459e12, 2765e9, 128),
        ("tpu-v6e", 918e12, 1640e9, 128),
    ],
)
def test_fast_memory_of_a_tpu_is_ten_times_as_fast_and_says_so(
    name: str, flops: float, slow: float, fast_mib: int
) -> None:
    entry = load_memories()[name]
    hbm, fast = entry.device.layers
    assert entry.device.flops_per_s == flops
    assert hbm.read_bytes_per_s == hbm.write_bytes_per_s == slow
    assert fast.read_bytes_per_s == fast.write_bytes_per_s == pytest.approx(10 * slow, rel=1e-12)
    assert fast.capacity_bytes == fast_mib * MIB
    assert entry.figures[f"{fast.name}.bytes_per_s"].kind == "extrapolated"


def test_the_nnp_i_has_three_layers() -> None:
    layers = get_memory_device("nnp-i").layers
    assert [(layer.name, layer.capacity_bytes, layer.read_bytes_per_s) for layer in layers] == [
        ("DRAM", 32 * 2**30, 68e9),
        ("LLC", 24 * MIB, 680e9),
        ("SRAM", 4 * MIB, 6.8e12),
    ]


def test_the_h100_agrees_with_the_catalogue_of_devices() -> None:
    layered, plain = get_memory_device("h100-l2"), get_device("h100-sxm")
    assert layered.flops_per_s == plain.flops_per_s["bf16"]
    assert layered.layers[0].read_bytes_per_s == plain.memory_bandwidth_bytes_per_s
    assert layered.layers[0].capacity_bytes == plain.memory_bytes


def test_the_fast_capacity_can_be_chosen() -> None:
    device = get_memory_device("tpu-v5e", 48 * MIB)
    assert device.layers[1].capacity_bytes == 48 * MIB
    assert device.layers[0] == get_memory_device("tpu-v5e").layers[0]
    with pytest.raises(
        ConfigError, match="memory layer VMEM: field capacity_bytes: 0, expected an integer of at least 1"
    ):
        get_memory_device("tpu-v5e", 0)


def test_an_unknown_name_lists_close_ones() -> None:
    with pytest.raises(UnknownNameError, match="unknown memory device 'TPU-V4I'; closest: tpu-v4i"):
        get_memory_device("TPU-V4I")
    with pytest.raises(UnknownNameError, match="unknown memory device 'zzz'; choose from tpu-v4i"):
        get_memory_device("zzz")


RATE = "{ value = 1, kind = 'vendor', source = 'sheet' }"
LAYERS = (
    f"[[npu.layers]]\nname = 'DRAM'\nbytes_per_s = {RATE}\n"
    f"[[npu.layers]]\nname = 'SRAM'\nbytes_per_s = {RATE}\ncapacity_bytes = {RATE}\n"
)
GOOD = f"[npu]\nflops_per_s = {RATE}\n{LAYERS}"


def test_a_file_of_ones_own_may_leave_the_slow_capacity_open(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    slow, fast = load_memories(path)["npu"].device.layers
    assert (slow.capacity_bytes, fast.capacity_bytes) == (None, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[npu", "cannot be read as TOML: "),
        ("npu = 3", "device npu: expected a table with a list of layers, got 3"),
        (f"[npu]\n{LAYERS}", "device npu: field flops_per_s: expected { value, kind, source }, got None"),
        (
            GOOD.replace("[npu]", "[npu]\ntops = 1", 1),
            "device npu: field tops: unknown, expected layers and flops_per_s",
        ),
        (GOOD.replace("name = 'DRAM'\n", ""), "device npu: field layers[0]: expected a table with a name"),
        (GOOD.replace("name = 'DRAM'", "name = 'DRAM'\nram = 1"), "field layers[0].ram: unknown, expected name"),
        (
            GOOD.replace("kind = 'vendor'", "kind = 'guess'", 1),
            "field flops_per_s.kind: 'guess', expected one of vendor",
        ),
        (GOOD.replace("source = 'sheet'", "source = ''", 1), "field flops_per_s.source: '', expected where the figure"),
        (GOOD.replace("value = 1", "value = 'a'", 1), "field flops_per_s.value: 'a', expected a number"),
        (GOOD.replace("value = 1", "value = 0.5"), "field layers[1].capacity_bytes.value: 0.5, expected whole bytes"),
        (GOOD.replace("value = 1", "value = 0"), "field read_bytes_per_s: 0.0, expected a positive number"),
        (GOOD.replace(f"capacity_bytes = {RATE}", ""), "fast layer SRAM needs capacity_bytes"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_memories(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
