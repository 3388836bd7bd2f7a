"""Programs from torch functions and modules: operations, FLOPs and buffers of one run, without running it.

``torch.fx``'s ``make_fx`` records the ATen operations under ``FakeTensorMode``: tensors have shapes but no values, so
that a model of any size needs neither weights nor memory. Buffers are told apart by their storage, which makes every
view an access of the buffer it looks into. Torch is imported inside the functions; the rest of the family needs none.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from schedrl.envs.memmap.trace_graph import program_of
from schedrl.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["SGD_LEARNING_RATE", "trace", "trace_module"]

SGD_LEARNING_RATE = 0.01


def trace(
    function: Callable[..., Any], *inputs: Any, name: str = "program", labels: Sequence[str] = ()
) -> dict[str, Any]:
    """Record a torch function as a program that needs no device.

    Every ATen operation that computes something is an operation of the program, in the order of execution; views are
    accesses of the buffer they look into and move only the bytes they show. An operation in place reads its buffer
    and defines a new one (a parameter that is updated in place is an input, its new value an output). Results that
    nothing uses, and operations without used results, are left out. FLOPs are those of torch's own flop counter:
    2 per multiplication and addition of matrix products and convolutions, 0 for everything else.

    Args:
        function: called once with ``inputs``; must not depend on the values of tensors.
        *inputs: tensors, or lists, tuples and mappings of them; real or fake.
        name: of the program.
        labels: of the tensors in ``inputs``, flattened.

    Returns:
        ``{"name", "ops", "buffers"}`` as ``MemoryMapInstance.from_program`` reads it. Operations also have
        ``pointwise`` where they are elementwise, and buffers ``elements``; ``fuse`` uses both.

    Raises:
        ConfigError: the function cannot be traced, for example because its control flow depends on data.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    mode, fake = _fakes(inputs)
    try:
        with mode, _quiet():
            graph = make_fx(function, tracing_mode="real")(*fake).graph
    except Exception as error:
        raise ConfigError(f"{name}: tracing failed: {_reason(error)}") from error
    return {"name": name} | program_of(graph, labels)


def trace_module(
    module: torch.nn.Module,
    inputs: Sequence[Any] | Mapping[str, Any],
    *,
    name: str = "program",
    train: bool = False,
    loss: Callable[..., Any] | None = None,
    targets: Sequence[Any] = (),
    dtype: str = "bfloat16",
) -> dict[str, Any]:
    """Record a module's inference, or a full training step with plain SGD.

    Inference runs the module in evaluation mode without gradients. A training step is the forward pass in training
    mode, the loss, its gradient in every parameter that asks for one, and ``parameter - rate * gradient``: the new
    parameters and buffers are outputs.

    Args:
        module: its parameters and buffers are inputs of the program, labelled by their names.
        inputs: positional arguments, or keyword arguments as a mapping.
        name: of the program.
        train: record a training step.
        loss: ``loss(output, *targets)`` is the scalar to minimise; by default the output itself if it is a scalar,
            otherwise the mean of its first floating-point tensor.
        targets: further inputs of the loss.
        dtype: every floating-point tensor is given this type.

    Returns:
        A program as from ``trace``.

    Raises:
        ConfigError: unknown type, no parameter to train, or the module cannot be traced.
    """
    import torch
    from torch.utils import _pytree as pytree

    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise ConfigError(f"{name}: field dtype: {dtype!r} is no floating-point type of torch, such as bfloat16")

    module.train(train)
    parameters, buffers = dict(module.named_parameters()), dict(module.named_buffers())
    trained = [key for key, value in parameters.items() if value.requires_grad]
    if train and not trained:
        raise ConfigError(f"{name}: the module has no parameter to train")
    positional, named = ((), dict(inputs)) if isinstance(inputs, Mapping) else (tuple(inputs), {})

    def run(weights: dict[str, Any], state: dict[str, Any], args: Any, kwargs: Any) -> Any:
        return torch.func.functional_call(module, (weights, state), args, kwargs)

    def infer(weights: dict[str, Any], state: dict[str, Any], args: Any, kwargs: Any, _: Any) -> Any:
        with torch.no_grad():
            return _tensors(run(weights, state, args, kwargs))

    def step(weights: dict[str, Any], state: dict[str, Any], args: Any, kwargs: Any, wanted: Any) -> Any:
        weights = {key: w.detach().requires_grad_(key in trained) for key, w in weights.items()}
        value = _loss_value(run(weights, state, args, kwargs), loss, wanted)
        gradients = torch.autograd.grad(value, [weights[key] for key in trained], allow_unused=True)
        with torch.no_grad():
            updated = [
                weights[key] - SGD_LEARNING_RATE * gradient
                for key, gradient in zip(trained, gradients, strict=True)
                if gradient is not None
            ]
        return value.detach(), updated

    _, arguments = _fakes((parameters, buffers, positional, named, tuple(targets) if train else ()), kind)
    flat, _ = pytree.tree_flatten_with_path(arguments)
    labels = [_label(path) for path, _ in flat]
    with torch.set_grad_enabled(train):
        return trace(step if train else infer, *arguments, name=name, labels=labels)


def _label(path: Sequence[Any]) -> str:
    keys = [str(getattr(key, "key", getattr(key, "idx", key))) for key in path]
    kind = ("", "", "input.", "input.", "target.")[int(keys[0])]
    return kind + ".".join(keys[1:])


def _fakes(values: Any, kind: torch.dtype | None = None) -> tuple[Any, Any]:
    """Return a fake mode, and the values with every tensor as a new one in that mode, cast if of floating point.

    The mode is that of the first fake tensor, for the sake of constants that a module may keep. The others may be of
    other modes: copying a module copies the modes of its parameters, too.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
    from torch.utils import _pytree as pytree

    flat = pytree.tree_flatten(values)[0]
    modes = [leaf.fake_mode for leaf in flat if isinstance(leaf, FakeTensor)]
    mode = modes[0] if modes else FakeTensorMode(allow_non_fake_inputs=True)

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        dtype = kind if kind is not None and tensor.is_floating_point() else tensor.dtype
        return torch.empty_strided(tensor.size(), tensor.stride(), dtype=dtype)

    with mode:
        return mode, pytree.tree_map_only(torch.Tensor, fake, values)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from logging the traceback of an error that is reported in one line."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def _tensors(output: Any) -> list[Any]:
    """Return the tensors of any output: registered containers, and objects with attributes such as data classes."""
    import torch
    from torch.utils import _pytree as pytree

    leaves = pytree.tree_flatten(output)[0]
    found = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    for leaf in leaves:
        if not isinstance(leaf, torch.Tensor) and hasattr(leaf, "__dict__"):
            found += _tensors(dict(vars(leaf)))
    return found


def _loss_value(output: Any, loss: Callable[..., Any] | None, targets: Sequence[Any]) -> Any:
    if loss is not None:
        return loss(output, *targets)
    floating = [tensor for tensor in _tensors(output) if tensor.is_floating_point()]
    if not floating:
        raise ConfigError("the output has no floating-point tensor to take a loss of")
    return floating[0] if floating[0].ndim == 0 else floating[0].mean()


def _reason(error: Exception) -> str:
    """Return in one line why tracing failed; names the operation whose result depends on data."""
    operation = getattr(error, "func", None)
    if type(error).__name__ in ("DataDependentOutputException", "DynamicOutputShapeException") and operation:
        name = str(operation).removesuffix(".default")
        hint = " (if, while, int() or .item() on a tensor)" if "_local_scalar_dense" in name or "item" in name else ""
        return f"{name}{hint} depends on the values of tensors{_place(error)}; a program is fixed before it runs"
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}{_place(error)}"


def _place(error: Exception) -> str:
    """Return `` at file:line`` of the innermost call outside torch and this module."""
    from pathlib import Path

    import torch

    home, place, step = str(Path(torch.__file__).parent), "", error.__traceback__
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        if not file.startswith((home, "<")) and file != __file__:
            place = f" at {file}:{step.tb_lineno}"
        step = step.tb_next
    return place
