"""The packaged networks: their parameters against the publications, their programs against reference traces."""

from __future__ import annotations

import importlib
import json
import os
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from schedrl.devices.memories import get_memory_device  # noqa: E402
from schedrl.envs.memmap.fusion import fuse  # noqa: E402
from schedrl.envs.memmap.programs import PROGRAMS, _packaged, build_program, load_program, program_names  # noqa: E402
from schedrl.envs.memmap.trace import trace_module  # noqa: E402
from schedrl.errors import UnknownNameError  # noqa: E402

MODELS = "schedrl.envs.memmap.models"
MEMORY = get_memory_device("tpu-v4i")


def example(target: str, **options: int) -> tuple[Any, ...]:
    module, _, function = target.partition(":")
    with FakeTensorMode():
        made: tuple[Any, ...] = getattr(importlib.import_module(f"{MODELS}.{module}"), function)(**options)
    return made


@pytest.mark.parametrize(
    ("target", "parameters"),
    [
        ("resnet:resnet18", 11_689_512),  # the published sizes of torchvision's models
        ("resnet:resnet34", 21_797_672),
        ("resnet:resnet50", 25_557_032),
        ("alexnet:alexnet", 61_100_840),
        ("vgg:vgg11", 132_863_336),
        ("vgg:vgg16", 138_357_544),
        # GPT-2's 124,439,808 have 1,024 positions; these 512.
        ("gpt2:gpt2_small", 124_439_808 - 512 * 768),
        # BERT base with its token head, 109,514,298, has 512 positions; these 256.
        ("bert:bert_base", 109_514_298 - 256 * 768),
        (
            "unet:unet",
            31_037_698,
        ),  # Ronneberger's 31,031,810 of convolutions for one channel; here norms and 3 channels
    ],
)
def test_numbers_of_parameters(target: str, parameters: int) -> None:
    assert sum(weight.numel() for weight in example(target)[0].parameters()) == parameters


@cache
def unfused(target: str, train: bool) -> dict[str, Any]:
    """The program of a network, with the loss of the reference traces in training."""
    module, inputs, *_ = example(target)
    return trace_module(module, inputs, train=train, loss=lambda output: output.float().pow(2).mean())


def flops(program: dict[str, Any]) -> float:
    return float(sum(o["flops"] for o in program["ops"]))


def activations(program: dict[str, Any]) -> int:
    return sum(len(o["writes"]) for o in program["ops"])


def test_resnet50_in_inference_has_the_reference_counts() -> None:
    program = unfused("resnet:resnet50", False)
    assert (len(program["ops"]), activations(program)) == (174, 174)
    # Images, 53 convolutions, 53 norms with two parameters, the classifier; the reference leaves out the statistics.
    assert len(program["buffers"]) - 174 - 2 * 53 == 162
    assert flops(program) == 261_707_792_384
    assert Counter(o["label"].rstrip("0123456789_") for o in program["ops"]) == {
        "convolution": 53,
        "native_batch_norm": 53,
        "relu": 49,
        "add": 16,
        "max_pool2d_with_indices": 1,
        "mean": 1,
        "addmm": 1,
    }


def test_a_training_step_of_resnet50_has_the_reference_counts() -> None:
    program = unfused("resnet:resnet50", True)
    # The reference also counts the batches that each of 53 norms has seen.
    assert len(program["ops"]) == 734 - 53
    assert flops(program) == 777_570_484_224
    # It does not follow the 106 running statistics.
    assert activations(program) == 999 - 53 + 106


def test_gpt2_in_inference_has_the_reference_counts() -> None:
    program = unfused("gpt2:gpt2_small", False)
    # The reference has no positions (range, embedding, sum), no mask (comparison, and one filling per layer).
    assert len(program["ops"]) == 207 + 3 + 1 + 12
    assert flops(program) == 544_641_908_736


def test_a_training_step_of_gpt2_has_the_reference_counts() -> None:
    program = unfused("gpt2:gpt2_small", True)
    # Beyond inference: positions are summed over the batch, have a gradient and an update (4), masks a gradient each.
    assert len(program["ops"]) == 839 + 3 + 1 + 12 + 4 + 12
    assert flops(program) == 1_633_925_726_208


@pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no reference traces to compare")
def test_resnet50_is_the_reference_trace_operation_by_operation() -> None:
    path = Path(os.environ["SCHEDRL_DATA"], "memmap", "torch_traces", "resnet50_infer_b32.mmap.json")
    reference = json.loads(path.read_text())

    def shapes(program: dict[str, Any]) -> list[tuple[float, list[int]]]:
        return [(o["flops"], [program["buffers"][b]["size"] for b in o["writes"]]) for o in program["ops"]]

    # The order differs where a shortcut is computed before or after the branch beside it.
    assert sorted(shapes(unfused("resnet:resnet50", False))) == sorted(shapes(reference))


@pytest.mark.parametrize(
    ("target", "train", "ops"),
    [("resnet:resnet50", False, 56), ("resnet:resnet50", True, 222), ("gpt2:gpt2_small", False, 112)],
)
def test_fusion_of_networks(target: str, train: bool, ops: int) -> None:
    before = unfused(target, train)
    after = fuse(before)
    assert len(after["ops"]) == ops
    assert flops(after) == flops(before)
    outputs = [[b["label"] for b in program["buffers"] if b.get("output")] for program in (before, after)]
    assert sorted(outputs[0]) == sorted(outputs[1])


def test_resnet50_fuses_to_one_operation_per_convolution() -> None:
    labels = [o["label"] for o in fuse(unfused("resnet:resnet50", False))["ops"]]
    assert labels[:2] == ["convolution+native_batch_norm+relu", "max_pool2d_with_indices"]
    assert sum(label.startswith("convolution") for label in labels) == 53
    assert labels[-2:] == ["mean", "addmm"]


def test_every_packaged_program_loads() -> None:
    assert len(program_names()) == 30
    assert len(program_names(evaluation=True)) == 10
    for name in program_names():
        instance = load_program(name, MEMORY)
        assert instance.name == name
        assert instance is load_program(name, MEMORY)
        written = instance.access_buffer[instance.access_write]
        read = instance.access_buffer[~instance.access_write]
        assert set(written[~instance.output[written]].tolist()) <= set(read.tolist())  # nothing is made in vain
        assert instance.output.sum() == 1 if name.endswith("infer") else instance.output.sum() > 10


@pytest.mark.parametrize(
    ("name", "ops", "buffers", "teraflop"),
    [
        ("resnet50-infer", 56, 324, 0.2617),
        ("resnet50-train", 224, 865, 0.7776),
        ("gpt2-small-infer", 112, 261, 0.5446),
        ("gpt2-small-train", 410, 661, 1.6339),
        ("bert-base-infer", 140, 345, 0.4656),
        ("bert-base-train", 469, 780, 1.3969),
        ("alexnet-infer", 11, 28, 0.0457),
        ("alexnet-train", 35, 66, 0.1326),
        ("unet-infer", 31, 132, 0.1927),
        ("unet-train", 98, 340, 0.5776),
    ],
)
def test_sizes_of_the_benchmark(name: str, ops: int, buffers: int, teraflop: float) -> None:
    instance = load_program(name, MEMORY)
    assert (instance.ops, instance.buffers) == (ops, buffers)
    assert instance.flops.sum() == pytest.approx(teraflop * 1e12, abs=5e7)


def test_unknown_programs_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown program 'resnet51-infer'"):
        load_program("resnet51-infer", MEMORY)


@pytest.mark.parametrize("name", ["alexnet-train", "moe-train", "gpt2-6x384-infer"])
def test_packaged_programs_are_what_tracing_gives(name: str) -> None:
    packaged = _packaged(name)
    built = build_program(PROGRAMS[name])
    if packaged["torch"] != built["torch"]:
        pytest.skip(f"packaged with torch {packaged['torch']}, this is {built['torch']}: its operations may differ")
    assert json.loads(json.dumps(built)) == packaged
