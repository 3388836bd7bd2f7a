"""``module:function`` as a source of programs: import it, call it without allocating weights, trace what it returns."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from schedrl.envs.memmap.fusion import fuse
from schedrl.envs.memmap.trace import trace_module
from schedrl.errors import ConfigError

__all__ = ["find_target", "trace_target"]

_PROTOCOL = "expected (module, inputs), optionally followed by a loss and its targets"


def trace_target(
    target: str,
    *,
    options: Mapping[str, Any],
    input_shapes: Sequence[str] = (),
    name: str | None = None,
    train: bool = False,
    fused: bool = True,
    dtype: str = "bfloat16",
) -> dict[str, Any]:
    """Trace the torch module that a function returns.

    The function is called with ``options`` (such as ``batch=32``) and returns ``(module, inputs)``, where inputs are
    positional tensors or a mapping of named ones, or ``(module, inputs, loss)`` or ``(module, inputs, loss,
    targets)`` for training. With ``input_shapes`` it is called without arguments and returns the module alone (a
    module itself, or its class, will do). It runs under ``FakeTensorMode`` where it can, and then no weights are
    allocated or drawn.

    Args:
        target: ``module:function``; modules are also looked for in the working directory.
        options: keyword arguments of the function.
        input_shapes: one per positional input, such as ``32x3x224x224`` or, with another type than float,
            ``8x128:int64``.
        name: of the program, by default the function's and what is traced, such as ``resnet50-train``.
        train: trace a training step, see ``trace_module``.
        fused: merge elementwise operations, see ``fuse``.
        dtype: of every floating-point tensor.

    Returns:
        A program as from ``trace``.

    Raises:
        ConfigError: no such module or function, another result than described, or tracing fails.
    """
    function = find_target(target)
    module, inputs, loss, targets = _weightless(function, target, options, input_shapes)
    program = trace_module(
        module,
        inputs,
        name=name or f"{target.partition(':')[2].rpartition('.')[2]}-{'train' if train else 'infer'}",
        train=train,
        loss=loss,
        targets=targets,
        dtype=dtype,
    )
    return fuse(program) if fused else program


def find_target(target: str) -> Any:
    """Import what ``module:function`` names; modules are also looked for in the working directory.

    Raises:
        ConfigError: no such module or attribute, or it cannot be called.
        ModuleNotFoundError: the module needs torch, which is missing.
    """
    module_name, _, path = target.partition(":")
    if not module_name or not path:
        raise ConfigError(f"{target}: expected module:function")
    found: Any = _import(module_name, target)
    for part in path.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{target}: {getattr(found, '__name__', module_name)} has no attribute {part}")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"{target}: {path} is not callable, but a {type(found).__name__}")
    return found


def _import(name: str, target: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.partition(".")[0] == "torch":
            raise
        if missing == name or name.startswith(f"{missing}."):
            raise ConfigError(f"{target}: no module named {missing} in {here} or on the Python path") from None
        raise ConfigError(f"{target}: {name} needs the module {missing}, which is not installed") from None
    except Exception as error:  # a module may do anything when it is imported
        raise ConfigError(f"{target}: importing {name} failed: {type(error).__name__}: {error}") from error


def _weightless(*arguments: Any) -> tuple[Any, Any, Any, Any]:
    """Return the example without allocating its weights, or with them where its construction needs values."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    try:
        with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of constructors that look at the address of a weight
            return _example(*arguments)
    except ConfigError:
        return _example(*arguments)


def _example(
    function: Any, target: str, options: Mapping[str, Any], shapes: Sequence[str]
) -> tuple[Any, Any, Any, Any]:
    import torch

    if shapes:
        module = function if isinstance(function, torch.nn.Module) else _call(function, target, {})
        result: Any = (module, tuple(_input(shape, target) for shape in shapes))
    else:
        result = _call(function, target, options)
    if isinstance(result, torch.nn.Module):
        raise ConfigError(f"{target}: it returned a module alone: give its inputs with --input-shape, or {_PROTOCOL}")
    if not isinstance(result, (tuple, list)) or not 2 <= len(result) <= 4:
        raise ConfigError(f"{target}: it returned {type(result).__name__}, {_PROTOCOL}")
    module, inputs, loss, targets = tuple(result) + (None, ())[len(result) - 2 :]
    inputs, targets = ((part,) if isinstance(part, torch.Tensor) else part for part in (inputs, targets))
    kinds: tuple[tuple[str, Any, Any], ...] = (
        ("a module", module, torch.nn.Module),
        ("inputs", inputs, (tuple, list, Mapping)),
        ("a loss", loss, (Callable, type(None))),
        ("targets", targets, (tuple, list)),
    )
    for role, part, kind in kinds:
        if not isinstance(part, kind):
            raise ConfigError(f"{target}: it returned {type(part).__name__} for {role}, {_PROTOCOL}")
    return module, inputs, loss, targets


def _input(text: str, target: str) -> Any:
    import torch

    sizes, colon, kind = text.partition(":")
    parts = sizes.lower().split("x")
    dtype = getattr(torch, kind) if colon and hasattr(torch, kind) else None if colon else torch.float32
    if not all(part.isdecimal() and int(part) for part in parts) or not isinstance(dtype, torch.dtype):
        raise ConfigError(f"{target}: --input-shape {text}: expected sizes such as 32x3x224x224, or 8x128:int64")
    return torch.zeros(*map(int, parts), dtype=dtype)


def _call(function: Any, target: str, options: Mapping[str, Any]) -> Any:
    try:
        return function(**options)
    except ModuleNotFoundError:
        raise  # its own message says what to install
    except Exception as error:
        given = ", ".join(f"{key}={value}" for key, value in options.items())
        raise ConfigError(f"{target}: calling it with ({given}) failed: {type(error).__name__}: {error}") from error
