"""The packaged programs: well-known networks, traced once, as instances for any memory device."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from schedrl.devices.memory import MemoryDevice
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.errors import UnknownNameError

__all__ = ["PROGRAMS", "PROGRAM_SCHEMA", "ProgramSpec", "build_program", "load_program", "program_names"]

PROGRAM_SCHEMA = "schedrl/memory-program/1"
_MODELS = "schedrl.envs.memmap.models"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramSpec:
    """How a packaged program is made: fused, in bfloat16."""

    name: str
    target: str
    """``module:function`` of the network"""
    train: bool
    """a training step instead of inference"""
    evaluation: bool
    """one of the five networks of the benchmark; learned schedulers train on the others"""
    options: Mapping[str, int] = field(default_factory=dict)
    """arguments of the function, ``batch`` among them"""


# name, module:function, whether it is for evaluation, arguments
_NETWORKS: tuple[tuple[str, str, bool, dict[str, int]], ...] = (
    ("resnet50", "resnet:resnet50", True, {"batch": 32}),
    ("gpt2-small", "gpt2:gpt2_small", True, {"batch": 4, "length": 512}),
    ("bert-base", "bert:bert_base", True, {"batch": 8, "length": 256}),
    ("alexnet", "alexnet:alexnet", True, {"batch": 32}),
    ("unet", "unet:unet", True, {"batch": 8, "image": 128}),
    ("resnet18-b16", "resnet:resnet18", False, {"batch": 16}),
    ("resnet18-b32", "resnet:resnet18", False, {"batch": 32}),
    ("resnet34", "resnet:resnet34", False, {"batch": 32}),
    ("vgg11", "vgg:vgg11", False, {"batch": 16}),
    ("gpt2-4x512", "gpt2:gpt2", False, {"batch": 4, "layers": 4, "width": 512, "heads": 8, "length": 256}),
    ("gpt2-6x384", "gpt2:gpt2", False, {"batch": 8, "layers": 6, "width": 384, "heads": 6, "length": 128}),
    ("bert-4x384", "bert:bert", False, {"batch": 8, "layers": 4, "width": 384, "heads": 6, "length": 128}),
    ("mlp", "mlp:mlp", False, {"batch": 256}),
    ("moe", "moe:moe", False, {"batch": 4, "length": 256}),
    ("unet-64", "unet:unet", False, {"batch": 8, "image": 64, "width": 32}),
)

PROGRAMS: Mapping[str, ProgramSpec] = MappingProxyType(
    {
        f"{name}-{mode}": ProgramSpec(
            name=f"{name}-{mode}",
            target=f"{_MODELS}.{target}",
            train=mode == "train",
            evaluation=evaluation,
            options=options,
        )
        for name, target, evaluation, options in _NETWORKS
        for mode in ("infer", "train")
    }
)


def program_names(*, evaluation: bool | None = None) -> tuple[str, ...]:
    """Return the names of the packaged programs, such as ``resnet50-train``.

    Args:
        evaluation: only those of the benchmark's five networks (True), or only the others (False).
    """
    return tuple(name for name, spec in PROGRAMS.items() if evaluation in (None, spec.evaluation))


@lru_cache(maxsize=128)
def load_program(name: str, memory: MemoryDevice) -> MemoryMapInstance:
    """Return a packaged program as an instance for a memory device; the instance is kept and shared.

    Raises:
        UnknownNameError: no such program.
    """
    return MemoryMapInstance.from_program(_packaged(name), memory=memory, source=f"{name}.mmap.json.gz")


@cache
def _packaged(name: str) -> dict[str, Any]:
    if name not in PROGRAMS:
        raise UnknownNameError(f"unknown program {name!r}; choose from {', '.join(PROGRAMS)}")
    packed = (files("schedrl.envs.memmap") / "data" / f"{name}.mmap.json.gz").read_bytes()
    program: dict[str, Any] = json.loads(gzip.decompress(packed))
    return program


def build_program(spec: ProgramSpec) -> dict[str, Any]:
    """Trace a packaged program anew; needs torch, whose version is part of the result.

    Raises:
        ConfigError: tracing fails.
    """
    import torch

    from schedrl.envs.memmap.torch_target import trace_target

    program = trace_target(spec.target, options=spec.options, train=spec.train, name=spec.name)
    version = torch.__version__.partition("+")[0]
    return {"schema": PROGRAM_SCHEMA, "name": spec.name, "torch": version} | program
