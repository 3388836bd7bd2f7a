"""``schedrl memmap trace``: a program file from a torch module."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from schedrl.cli.arguments import JsonFlag
from schedrl.cli.console import emit_json, number, print_fields
from schedrl.errors import ConfigError

__all__ = ["trace"]


def trace(
    target: Annotated[str, typer.Argument(help="module:function that returns (module, inputs[, loss[, targets]]).")],
    batch: Annotated[int | None, typer.Option("--batch", "-b", min=1, help="Batch size given to the function.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Further argument as name=value; repeat for several.", metavar="NAME=VALUE"),
    ] = None,
    input_shape: Annotated[
        list[str] | None,
        typer.Option("--input-shape", help="Of a module returned alone, also 8x128:int64.", metavar="32x3x224x224"),
    ] = None,
    train: Annotated[bool, typer.Option("--train", help="Trace a training step instead of inference.")] = False,
    no_fuse: Annotated[bool, typer.Option("--no-fuse", help="Keep elementwise operations apart.")] = False,
    dtype: Annotated[str, typer.Option("--dtype", help="Of floating-point tensors.")] = "bfloat16",
    device: Annotated[str, typer.Option("--device", "-d", help="Memory device.")] = "tpu-v4i",
    capacity_mib: Annotated[float | None, typer.Option("--capacity-mib", help="Of its first fast layer.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File; by default NAME.mmap.json.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Trace a torch module to a program file, without allocating its weights.

    The function is called with the batch size and returns a module and its inputs, and for training optionally a
    loss(output, *targets) and targets. With --input-shape, any class or function that returns a module will do.

    For example:

        schedrl memmap trace schedrl.envs.memmap.models.resnet:resnet50 --batch 32 --train

        schedrl memmap trace my_models:Net --input-shape 8x3x64x64 --out net.mmap.json
    """
    from schedrl.atomic import write_text
    from schedrl.cli.settings import plain_values
    from schedrl.devices.memories import get_memory_device
    from schedrl.envs.memmap.instance import MemoryMapInstance
    from schedrl.envs.memmap.torch_target import trace_target

    if input_shape and (batch is not None or settings):
        raise ConfigError("--input-shape is for modules returned alone; --batch and --set are for functions")
    options: dict[str, Any] = plain_values(settings or []) | ({} if batch is None else {"batch": batch})
    memory = get_memory_device(device, _bytes(capacity_mib))
    program = trace_target(
        target, options=options, input_shapes=input_shape or (), train=train, fused=not no_fuse, dtype=dtype
    )
    instance = MemoryMapInstance.from_program(program, memory=memory, source=target)
    path = out or Path(f"{instance.name}.mmap.json")
    write_text(path, instance.to_json())
    _report(path, instance, as_json)


def _bytes(mebibytes: float | None) -> int | None:
    if mebibytes is None:
        return None
    if not 0 < mebibytes < 2**30:
        raise ConfigError(f"--capacity-mib {mebibytes:g}: expected a positive size")
    return int(mebibytes * 2**20)


def _report(path: Path, instance: Any, as_json: bool) -> None:
    facts: Mapping[str, Any] = {
        "name": instance.name,
        "operations": instance.ops,
        "buffers": instance.buffers,
        "accesses": instance.accesses,
        "flops": float(instance.flops.sum()),
        "bytes_accessed": int(instance.access_bytes.sum()),
        "memory": instance.memory.name,
        "capacity_bytes": instance.memory.layers[1].capacity_bytes,
    }
    if as_json:
        emit_json({"file": str(path)} | dict(facts))
        return
    texts = ((key, value if isinstance(value, str) else number(value)) for key, value in facts.items())
    print_fields([("file", str(path)), *texts])
