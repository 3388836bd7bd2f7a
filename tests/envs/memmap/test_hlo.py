"""HLO text: small modules written for these tests, and XLA's own decisions for AlexNet."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from schedrl.devices import get_memory_device
from schedrl.envs.memmap.formats import parse_instance, read_instances
from schedrl.envs.memmap.hlo_assignment import parse_assignment, read_assignment
from schedrl.envs.memmap.hlo_shapes import ArrayShape, TupleShape, leaves, parse_shape
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.errors import InstanceError

LOOP = Path(__file__).with_name("loop.hlo").read_text()


def parse(text: str) -> MemoryMapInstance:
    instance = parse_instance(text, source="m.hlo", name="m")
    assert isinstance(instance, MemoryMapInstance)
    return instance


def entry(*lines: str, computations: str = "") -> dict[str, Any]:
    """Return the program of an entry computation, one instruction a line, as plain data."""
    body = "\n".join(lines)
    data: dict[str, Any] = json.loads(parse(f"HloModule m\n{computations}\nENTRY main {{\n{body}\n}}\n").to_json())
    return data


def test_a_module_with_a_fusion_a_loop_and_a_copy_between_layers() -> None:
    instance = parse(LOOP)
    data = json.loads(instance.to_json())
    assert instance.name == "jit_step"
    assert instance.memory == get_memory_device("tpu-v4i", 16 * 2**20)
    assert instance.buffer_labels == ("p0", "p1", "zero", "begin", "fusion", "weight", "loop{0}", "loop{1}")
    assert instance.size.tolist() == [128, 128, 4, 4, 256, 256, 4, 256]
    assert instance.output.tolist() == [False] * 7 + [True]  # seen through get-tuple-element and bitcast
    assert data["ops"] == [
        {"flops": 0.0, "reads": [2], "writes": [3], "label": "begin"},
        # The copy to another layer is a placement: the fusion reads the parameter. 2 * 8 * 8 * 4 operations.
        {"flops": 512.0, "reads": [0, 1], "writes": [4], "label": "fusion"},
        # The weight passes through; counter and x are updated in place.
        {
            "flops": 1024.0,
            "reads": [3, 4, 5],
            "writes": [6, 7],
            "groups": [0, 1, -1, 0, 1],
            "trips": 5,
            "label": "loop",
        },
    ]


def test_a_module_without_signatures_and_percent_signs_says_the_same() -> None:
    plain = LOOP.replace("%", "")
    assert parse(plain) == parse(LOOP)


def test_a_convolution_counts_its_window_and_input_features() -> None:
    data = entry(
        "x = bf16[2,16,16,8] parameter(0)",
        "k = bf16[3,3,8,32] parameter(1)",
        "ROOT c = bf16[2,16,16,32] convolution(x, k), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f",
    )
    assert data["ops"][0]["flops"] == 2 * (2 * 16 * 16 * 32) * 3 * 3 * 8


def test_a_depthwise_convolution_has_one_input_feature_per_group() -> None:
    data = entry(
        "x = f32[1,8,8,16] parameter(0)",
        "k = f32[3,3,1,16] parameter(1)",
        "ROOT c = f32[1,6,6,16] convolution(x, k), dim_labels=b01f_01io->b01f, feature_group_count=16",
    )
    assert data["ops"][0]["flops"] == 2 * (6 * 6 * 16) * 9


def test_a_library_product_tells_its_contraction_in_its_configuration() -> None:
    config = r'backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}'
    data = entry(
        "a = f32[4,6] parameter(0)",
        "b = f32[6,8] parameter(1)",
        f'g = (f32[4,8], s8[100]) custom-call(a, b), custom_call_target="__cublas$gemm", {config}',
        "ROOT r = f32[4,8] get-tuple-element(g), index=0",
    )
    assert data["ops"][0]["flops"] == 2 * 4 * 8 * 6
    assert [buffer["size"] for buffer in data["buffers"]] == [96, 192, 128, 100]


def test_of_a_conditional_the_most_expensive_branch_counts() -> None:
    branch = (
        "{0} {{\n{0}.x = f32[{1},{1}] parameter(0)\n"
        "ROOT {0}.d = f32[{1},{1}] dot({0}.x, {0}.x), lhs_contracting_dims={{1}}\n}}\n"
    )
    data = entry(
        "p = pred[] parameter(0)",
        "x = f32[4,4] parameter(1)",
        "y = f32[2,2] parameter(2)",
        "ROOT c = f32[4,4] conditional(p, x, y), true_computation=big, false_computation=small",
        computations=branch.format("big", 4) + branch.format("small", 2),
    )
    assert data["ops"][0]["flops"] == 128


def test_slices_of_a_weight_that_become_one_again_are_the_weight() -> None:
    data = entry(
        "w = f32[8,4] parameter(0)",
        "s0 = ((f32[8,4]), f32[4,4]{1,0:S(3)}, s32[]) slice-start(w), slice={[0:4], [0:4]}",
        "s1 = ((f32[8,4]), f32[4,4]{1,0:S(3)}, s32[]) slice-start(w), slice={[4:8], [0:4]}",
        "d0 = f32[4,4]{1,0:S(3)} slice-done(s0)",
        "d1 = f32[4,4]{1,0:S(3)} slice-done(s1)",
        'whole = f32[8,4]{1,0:S(3)} custom-call(d0, d1), custom_call_target="ConcatBitcast"',
        "ROOT n = f32[8,4] negate(whole)",
    )
    assert data["ops"] == [{"flops": 0.0, "reads": [0], "writes": [1], "label": "n"}]


def test_asynchronous_work_is_done_where_it_starts() -> None:
    data = entry(
        "x = f32[4] parameter(0)",
        "s = ((f32[4]), f32[2], s32[]) async-start(x), calls=wrapped",
        "u = ((f32[4]), f32[2], s32[]) async-update(s)",
        "d = f32[2] async-done(u)",
        "r = f32[2] all-reduce-start(d), to_apply=wrapped",
        "ROOT e = f32[2] all-reduce-done(r)",
        computations="wrapped {\ny = f32[4] parameter(0)\nROOT z = f32[2] slice(y), slice={[0:2]}\n}\n",
    )
    assert [(op["reads"], op["writes"]) for op in data["ops"]] == [([0], [1]), ([1], [2])]
    assert data["buffers"][2]["output"]


def test_slices_move_what_they_touch() -> None:
    data = entry(
        "x = f32[64] parameter(0)",
        "i = s32[] parameter(1)",
        "u = f32[4] dynamic-slice(x, i), dynamic_slice_sizes={4}",
        "y = f32[64] negate(x)",
        "ROOT r = f32[64] dynamic-update-slice(y, u, i)",
    )
    piece, _, update = data["ops"]
    assert (piece["read_bytes"], piece["write_bytes"]) == ([16, 4], [16])
    # y is needed no more, so that its place is taken and four elements are written.
    assert (update["read_bytes"], update["write_bytes"], update["groups"]) == ([0, 16, 4], [16], [0, -1, -1, 0])


def test_a_parameter_or_a_buffer_needed_later_keeps_its_place() -> None:
    data = entry(
        "x = f32[64] parameter(0)",
        "u = f32[4] parameter(1)",
        "i = s32[] parameter(2)",
        "a = f32[64] dynamic-update-slice(x, u, i)",
        "b = f32[64] dynamic-update-slice(a, u, i)",
        "ROOT c = f32[64] add(a, b)",
    )
    assert all("groups" not in op and "read_bytes" not in op for op in data["ops"])


def test_declared_aliases_form_groups() -> None:
    data = entry(
        "x = f32[4] parameter(0)",
        "a = f32[4] negate(x)",
        'f = (f32[4], f32[2]) custom-call(x, a), custom_call_target="k", output_to_operand_aliasing={{0}: (1, {})}',
        "ROOT r = f32[4] get-tuple-element(f), index=0",
    )
    assert data["ops"][1]["groups"] == [-1, 0, 0, -1]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("f32[]", 4),
        ("pred[3]", 3),
        ("s4[3]", 2),
        ("f8e4m3fn[5]", 5),
        ("c64[2]", 16),
        ("f32[<=4,2]", 32),
        ("f32[0]", 0),
        ("token[]", 0),
        ("bf16[3,5]{1,0}", 30),
        ("bf16[3,5]{1,0:T(8,128)(2,1)S(3)}", 8 * 128 * 2),
        ("bf16[3,5]{0,1:T(4,128)(2,1)}", 8 * 128 * 2),
        ("bf16[]{:T(256)}", 512),
    ],
)
def test_a_shape_takes_its_bytes_with_the_padding_of_its_tiles(text: str, size: int) -> None:
    shape, end = parse_shape(text + ", more")
    assert isinstance(shape, ArrayShape)
    assert (shape.bytes, end) == (size, len(text))


def test_tuples_of_shapes_nest() -> None:
    shape, _ = parse_shape("((f32[2], s32[]), pred[])")
    assert isinstance(shape, TupleShape)
    assert [leaf.bytes for leaf in leaves(shape)] == [8, 4, 1]


ENTRY = "HloModule m\nENTRY e {\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("HloModule\n", "m.hlo:1: got 'HloModule', expected HloModule and a name"),
        ("HloModule m\n", "m.hlo: no ENTRY computation"),
        (
            "HloModule m\nx = f32[] parameter(0)\n",
            "m.hlo:2: got 'x = f32[] parameter(0)', expected the start of a computation",
        ),
        (f"{ENTRY}a = f32[2] parameter(0)\n", "m.hlo:2: computation e does not end, expected '}'"),
        (f"{ENTRY}}}\n", "m.hlo:3: computation e has no instructions"),
        (f"{ENTRY}a = f33[2] parameter(0)\n}}\n", "m.hlo:3: field shape: a: unknown element type f33"),
        (
            f"{ENTRY}a = f32[-2] parameter(0)\n}}\n",
            "m.hlo:3: field shape: a: dimension '-2', expected an integer of 0 or more",
        ),
        (f"{ENTRY}a = f32[2] 7\n}}\n", "m.hlo:3: field opcode: a: got ' 7', expected opcode(operands)"),
        (
            f"{ENTRY}a = f32[2] parameter(0)\nb = f32[2] negate(c)\n}}\n",
            "m.hlo:4: field operands: b: unknown operand c",
        ),
        (
            f"{ENTRY}b = f32[2] negate(a)\na = f32[2] parameter(0)\n}}\n",
            "m.hlo:3: field operands: operation b uses buffer a before its definition in line 4",
        ),
        (
            f"{ENTRY}a = f32[2] negate(b)\nc = f32[2] negate(a)\nb = f32[2] negate(c)\n}}\n",
            "m.hlo:3: field operands: cyclic op order: a -> c -> b -> a",
        ),
        (
            f"{ENTRY}a = f32[2] parameter(0)\na = f32[2] parameter(1)\n}}\n",
            "m.hlo:4: field name: a is defined in lines 3 and 4",
        ),
        (
            f"{ENTRY}a = f32[2] parameter(0)\nb = f32[2] get-tuple-element(a), index=0\n}}\n",
            "m.hlo:4: field index: b: the operand has no element '0'",
        ),
        (
            f"{ENTRY}a = f32[2] parameter(0)\nb = f32[2] fusion(a), calls=f\n}}\n",
            "m.hlo:4: field calls: b: unknown computation f",
        ),
        (
            f"{ENTRY}a = f32[2] parameter(0)\nb = f32[2] dot(a, a), lhs_contracting_dims={{1}}\n}}\n",
            "m.hlo:4: field lhs_contracting_dims: b: got '1' for an operand of 1 dimensions",
        ),
        (
            f"{ENTRY}a = f32[2] parameter(0)\n}}\n",
            "m.hlo: m: field access_op: a program without accesses has nothing to decide",
        ),
    ],
)
def test_a_broken_module_names_its_line(text: str, message: str) -> None:
    with pytest.raises(InstanceError) as caught:
        parse(text)
    assert str(caught.value) == message


def test_a_computation_that_calls_itself_is_refused() -> None:
    loop = "f {\nx = f32[2] parameter(0)\nROOT y = f32[2] fusion(x), calls=f\n}\n"
    with pytest.raises(InstanceError, match=r"m\.hlo:4: field calls: y: computation f calls itself"):
        parse(f"HloModule m\n{loop}ENTRY e {{\na = f32[2] parameter(0)\nb = f32[2] fusion(a), calls=f\n}}\n")


DUMP = """BufferAssignment:
allocation 0: size 128, parameter 0, shape |f32[8,4]| at ShapeIndex {}:
 value: <1 p0 @0> (size=128,offset=0): f32[8,4]{1,0}
allocation 1: size 4096, color 3, preallocated-temp:
 value: <5 fusion @0> (size=256,offset=1024): f32[8,8]{1,0:S(3)}
 value: <6 copy-start{0} @1> (size=128,offset=0): f32[4,8]{1,0:S(3)}
allocation 2: size 4, thread-local:
 value: <7 i{} @0> (size=4,offset=0): s32[]{:S(2)}

Total bytes used: 4228 (4.1KiB)

Used values:
<1 p0 @0>
 positions:
  p0
"""


def test_a_buffer_assignment_tells_where_each_value_lies(tmp_path: Path) -> None:
    path = tmp_path / "m.after_optimizations-buffer-assignment.txt"
    path.write_text(DUMP)
    table = read_assignment(path)
    assert {name: (row.memory_space, row.offset, row.size) for name, row in table.items()} == {
        "p0": (0, 0, 128),
        "fusion": (3, 1024, 256),
        "copy-start{0}": (3, 0, 128),
        "i{}": (2, 0, 4),
    }
    assert table["fusion"].allocation == 1


def test_a_folder_of_dumps_holds_its_modules_only(tmp_path: Path) -> None:
    (tmp_path / "m.after_optimizations.txt").write_text(LOOP)
    (tmp_path / "m.after_optimizations-buffer-assignment.txt").write_text(DUMP)
    (tmp_path / "m.after_optimizations-memory-usage-report.txt").write_text("Total bytes used: 3\n")
    assert [instance.name for instance in read_instances(tmp_path)] == ["jit_step"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.txt: no values, expected a buffer assignment of XLA or a list of objects"),
        (
            DUMP.replace("offset=1024", "offset=x"),
            "a.txt:5: field value: got 'value: <5 fusion @0> (size=256,offset=x): ",
        ),
        (DUMP.replace("<5 fusion", "<5 p0"), "a.txt:5: field value: p0 has two places"),
        ("[3]", "a.txt: field [0]: expected an object, got 3"),
        (
            '[{"value": "x", "memory_space": 0, "size": 4}]',
            "a.txt: field [0].offset: got None, expected an integer of 0 or",
        ),
        ("[", "a.txt:1: not valid JSON: "),
    ],
)
def test_a_broken_assignment_names_its_place(text: str, message: str) -> None:
    with pytest.raises(InstanceError) as caught:
        parse_assignment(text, source="a.txt")
    assert str(caught.value).startswith(message)


@pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no decisions of XLA")
def test_sizes_agree_with_those_that_xla_allocated() -> None:
    path = Path(os.environ["SCHEDRL_DATA"], "memmap", "xla_aot_sample", "alexnet_v4_buffer_assignment.json")
    table = read_assignment(path)
    assert len(table) == 107
    arrays = [row for row in table.values() if not row.shape.startswith("(")]
    assert len(arrays) == 73
    for row in arrays:
        shape, _ = parse_shape(row.shape)
        assert isinstance(shape, ArrayShape)
        assert (shape.bytes, shape.memory_space) == (row.size, row.memory_space)
