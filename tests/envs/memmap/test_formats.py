"""Every format is told by its content; broken and mutilated files give one line that names them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schedrl.devices import get_memory_device
from schedrl.envs.memmap.formats import parse_instance, read_instance, read_instances, read_packing, write_instance
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import slow_latency_s
from schedrl.envs.memmap.packing import OffsetPackingInstance
from schedrl.errors import InstanceError, SolutionError

MIB = 2**20
TRACE: dict[str, Any] = {
    "name": "tiny",
    "ops": [
        {"flops": 8, "reads": [0], "writes": [1], "label": "a"},
        {"flops": 0, "reads": [1, 0], "writes": [2], "label": "b"},
        {"flops": 0, "reads": [2], "writes": [3], "label": "c"},
    ],
    "buffers": [{"size": 4}, {"size": 8, "label": "x"}, {"size": 4, "label": "y"}, {"size": 2, "uses": [3]}],
}
CONTEST = {
    "widths": [128, 128, 128],
    "heights": [128, 128, 128],
    "inputs": [[0], [1]],
    "outputs": [[1], [2]],
    "base_costs": [1000, 100],
    "op_types": ["MatMul", "Pointwise"],
    "fast_memory_capacity": 35000,
    "slow_memory_bandwidth": 10,
    "native_granularity": [128, 128],
}
CSV = "id,lower,upper,size,alignment,gaps,offset\na,0,5,8,4,1-2 3-4@0:4,\nb,2,7,4,1,,12\n"
PACKING = OffsetPackingInstance(
    name="p", lower=np.array([0, 1]), upper=np.array([2, 3]), size=np.array([4, 4]), capacity=8, labels=("a", "b")
)


def changed(op: int | None = None, buffer: int | None = None, **fields: Any) -> str:
    """Return the trace over several lines with some fields of an operation or buffer changed."""
    data = json.loads(json.dumps(TRACE))
    if op is not None:
        data["ops"][op].update(fields)
    if buffer is not None:
        data["buffers"][buffer].update(fields)
    return json.dumps(data, indent=1)


def test_a_trace_without_a_device_runs_on_a_tpu_v4i_with_16_mib() -> None:
    instance = parse_instance(json.dumps(TRACE), source="f", name="x")
    assert isinstance(instance, MemoryMapInstance)
    assert instance.name == "tiny"
    assert instance.memory == get_memory_device("tpu-v4i", 16 * MIB)
    assert instance.output.tolist() == [False, False, False, True]
    device = get_memory_device("tpu-v5e")
    other = parse_instance(json.dumps(TRACE), source="f", name="x", memory=device)
    assert isinstance(other, MemoryMapInstance) and other.memory == device


def test_our_own_files_are_written_and_read_back(tmp_path: Path) -> None:
    program = parse_instance(json.dumps(TRACE), source="f", name="x", memory=get_memory_device("nnp-i"))
    for instance, name in ((program, "a.mmap.json"), (PACKING, "b.mmap.json")):
        write_instance(instance, tmp_path / name)
        assert read_instance(tmp_path / name) == instance
    write_instance(PACKING, tmp_path / "c.8.csv")
    assert [instance.name for instance in read_instances(tmp_path)] == ["tiny", "p", "c"]
    with pytest.raises(InstanceError, match=r"d\.csv: cannot be written: CSV holds buffers to pack, no programs"):
        write_instance(program, tmp_path / "d.csv")
    assert len(list(tmp_path.iterdir())) == 3


def test_a_device_that_is_asked_for_replaces_that_of_the_file() -> None:
    text = parse_instance(json.dumps(TRACE), source="f", name="x").to_json()
    device = get_memory_device("esp32-s3")
    instance = parse_instance(text, source="f", name="x", memory=device)
    assert isinstance(instance, MemoryMapInstance) and instance.memory == device


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f.json: empty file, expected MiniMalloc CSV, memory-map or contest JSON, or XLA HLO text"),
        ("[]", "f.json:1: field (top level): got [], expected an object"),
        ('{\n"a": }', "f.json:2: not valid JSON: Expecting value: line 2 column 6 (char 7)"),
        (
            '{"name": "x"}',
            "f.json:1: field ops: missing, expected MiniMalloc CSV, memory-map or contest JSON, or XLA HLO text",
        ),
        (
            '{\n"schema": "other", "ops": []}',
            "f.json:2: field schema: got 'other', expected 'schedrl/memory-map-instance/1' or "
            "'schedrl/offset-packing-instance/1'",
        ),
        (
            changed(op=1, writes=[1]),
            "f.json:20: field ops[1].writes: buffer x is defined by operations a and b, expected one definition",
        ),
        (
            changed(op=0, reads=[0, 2], writes=[]),
            "f.json:6: field ops[0].reads: operation a uses buffer y before its definition by operation b",
        ),
        (changed(op=0, reads=[3]), "f.json:4: field ops[0]: cyclic op order: a -> b -> c -> a"),
        (changed(op=2, reads=[3]), "f.json:25: field ops[2]: cyclic op order: c -> c"),
        (changed(op=1, reads=[7]), "f.json:14: field ops[1]: unknown operand 7, there are buffers 0 to 3"),
        (changed(op=1, reads="x"), "f.json:16: field ops[1].reads: expected a list of integers, got 'x'"),
        (changed(op=1, flops=-1), "f.json:15: field ops[1].flops: -1, expected at least 0"),
        (changed(op=1, trips=0), "f.json:24: field ops[1].trips: 0, expected at least 1"),
        (changed(buffer=1, size=-8), "f.json:41: field buffers[1].size: -8, expected at least 1"),
        (changed(buffer=1, size=1.5), "f.json:41: field buffers[1].size: expected an integer, got 1.5"),
        (
            PACKING.to_json().replace('"fixed_offset": [-1, -1]', '"fixed_offset": [-1, 6]'),
            "f.json:1: p: field size: buffer b has 4, the buffer cannot end within the capacity 8",
        ),
        (
            PACKING.to_json().replace('"alignment": [1, 1]', '"alignment": [1, 0]'),
            "f.json:1: p: field alignment: buffer b has 0, expected at least 1",
        ),
    ],
)
def test_a_broken_file_names_line_and_field(text: str, message: str) -> None:
    with pytest.raises(InstanceError) as caught:
        parse_instance(text, source="f.json", name="f")
    assert str(caught.value) == message


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(InstanceError, match=r"none\.csv: cannot be read: No such file or directory"):
        read_instance(tmp_path / "none.csv")
    with pytest.raises(
        InstanceError, match=r"no instance file, expected at least one of \*\.csv, \*\.json, \*\.hlo, \*\.txt"
    ):
        list(read_instances(tmp_path))
    (tmp_path / "a.csv").write_bytes(b"id,\n\0")
    with pytest.raises(InstanceError, match=r"a\.csv:2: binary file"):
        read_instance(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_bytes(b"id,\n\n\xff")
    with pytest.raises(InstanceError, match=r"a\.csv:3: not UTF-8 text"):
        read_instance(tmp_path / "a.csv")
    (tmp_path / "p.json").write_text('{"schema": "schedrl/offset-packing/1", "offset": [0]}')
    with pytest.raises(SolutionError, match=r"p\.json: field offset: 1 offsets for 2 buffers"):
        read_packing(tmp_path / "p.json", PACKING)


SAMPLES = {
    "csv": CSV,
    "older csv": "buffer,start,end,size\na,0,4,8\nb,2,6,4\n",
    "trace": changed(),
    "program": parse_instance(json.dumps(TRACE), source="f", name="x").to_json(),
    "packing": PACKING.to_json(),
    "contest": json.dumps(CONTEST, indent=1),
    "hlo": Path(__file__).with_name("loop.hlo").read_text(),
}


@pytest.mark.parametrize("format", SAMPLES)
def test_mutilated_files_are_refused_or_read_never_worse(format: str) -> None:
    text = SAMPLES[format]
    parse_instance(text, source="f", name="f", capacity=64)
    rng = np.random.default_rng(4)
    characters = [
        *'-0123456789,:{}[]()"=%.@ \n\\aexf*<',
        "99999999999999999999",
        "null",
        "true",
        "NaN",
        "1e999",
        "\u0663",
        "\x85",
    ]
    refused = 0
    for _ in range(2000):
        at = int(rng.integers(len(text)))
        kind = int(rng.integers(4))
        new = str(rng.choice(characters)) if kind else ""
        broken = text[:at] if kind == 0 else text[:at] + new + text[at + (0, 0, 1, int(rng.integers(12)))[kind] :]
        try:
            parse_instance(broken, source="f", name="f", capacity=64)
        except InstanceError as error:
            refused += 1
            assert str(error).startswith("f:") and len(str(error).splitlines()) == 1
    assert refused > 400


@pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no traces")
@pytest.mark.parametrize(
    ("name", "device", "milliseconds", "counts"),
    [
        # The column of latencies without fast memory in memmap.md F5.
        ("resnet50_infer_b32", "tpu-v4i", 9.0538, (174, 336)),
        ("resnet50_infer_b32", "tpu-v5e", 6.737, (174, 336)),
        ("gpt2_infer_b4_t512", "tpu-v4i", 8.603, (207, 391)),
        ("gpt2_infer_b4_t512", "tpu-v5e", 6.269, (207, 391)),
        ("resnet50_train_b32", "tpu-v4i", 22.977, (734, 1161)),
        ("resnet50_train_b32", "tpu-v5e", 17.055, (734, 1161)),
    ],
)
def test_traces_take_their_published_time_in_slow_memory(
    name: str, device: str, milliseconds: float, counts: tuple[int, int]
) -> None:
    path = Path(os.environ["SCHEDRL_DATA"], "memmap", "torch_traces", f"{name}.mmap.json")
    instance = read_instance(path, memory=get_memory_device(device, 16 * MIB))
    assert isinstance(instance, MemoryMapInstance)
    assert (instance.ops, instance.buffers) == counts
    assert slow_latency_s(instance) * 1e3 == pytest.approx(milliseconds, abs=5e-4)
