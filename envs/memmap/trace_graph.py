"""Graphs that torch recorded, as programs: one operation per node that computes, one buffer per value of a storage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

__all__ = ["program_of"]

# Elementwise in effect, but without torch's tag for it.
_MOVES = frozenset(
    {"clone", "_to_copy", "copy", "copy_", "lift_fresh_copy", "native_dropout", "native_dropout_backward"}
)
_FILLS = frozenset(
    {"arange", "empty", "empty_strided", "fill", "fill_", "full", "ones", "scalar_tensor", "zero_", "zeros"}
)
# These use the shape of a tensor, not its values.
_FILLS_LIKE = frozenset(
    {f"{value}_like" for value in ("empty", "full", "ones", "zeros")}
    | {f"new_{value}" for value in ("empty", "empty_strided", "full", "ones", "zeros")}
)
_SHAPE_ONLY = _FILLS_LIKE | {"rand_like", "randn_like"}
_POINTWISE = _MOVES | _FILLS | _FILLS_LIKE
# These write every element of their first argument without reading it.
_OVERWRITES = frozenset({"copy_", "fill_", "zero_", "bernoulli_", "normal_", "uniform_", "exponential_"})
# These read as many bytes of their first argument as they return.
_GATHERS = frozenset({"embedding", "gather", "index", "index_select"})
_BATCH_NORM_STATISTICS = (3, 4)
_BATCH_NORM_TRAINING = 5
_BACKWARD_TRAINING = 7
_CPU_VARIANT = "_for_cpu"


def program_of(graph: Any, labels: Sequence[str]) -> dict[str, Any]:
    """Return operations and buffers of a ``torch.fx`` graph of ATen operations whose nodes know their fake values.

    Args:
        graph: as ``make_fx`` records it.
        labels: of its inputs, in order; the others are called as torch does.

    Returns:
        ``{"ops", "buffers"}``, see ``schedrl.envs.memmap.trace.trace``.
    """
    recorder = _Recorder(labels)
    for node in graph.nodes:
        recorder.record(node)
    return recorder.program()


class _Recorder:
    """Turns the nodes of a recorded graph into operations and buffers, one version of a storage after another."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = list(labels)
        self._ops: list[dict[str, Any]] = []
        self._buffers: list[dict[str, Any]] = []
        self._current: dict[int, int] = {}  # storage -> buffer that holds its value now
        self._is_input: set[int] = set()  # storages
        self._outputs: set[int] = set()

    def record(self, node: Any) -> None:
        """Take the next node of the graph."""
        if node.op == "placeholder":
            label = self._labels.pop(0) if self._labels else node.name
            self._take_input(node, label)
        elif node.op == "get_attr":
            self._take_input(node, str(node.target))
        elif node.op == "output":
            self._outputs.update(self._buffer(tensor) for tensor in _values(node.args))
        elif hasattr(node.target, "overloadpacket"):
            self._take_operation(node)

    def _take_input(self, node: Any, label: str) -> None:
        for tensor in _values(node):
            if (storage := _storage(tensor)) not in self._current:
                self._is_input.add(storage)
                self._define(storage, tensor, label)

    def _define(self, storage: int, tensor: Any, label: str) -> int:
        size = tensor.untyped_storage().nbytes()
        self._current[storage] = len(self._buffers)
        self._buffers.append({"size": size, "elements": size // tensor.element_size(), "label": label})
        return self._current[storage]

    def _buffer(self, tensor: Any) -> int:
        return self._current[_storage(tensor)]

    def _take_operation(self, node: Any) -> None:
        name = str(node.target.overloadpacket).partition(".")[2]
        results = [tensor for tensor in _values(node) if tensor.untyped_storage().nbytes()]
        written = _mutated(node, name)
        fresh = [tensor for tensor in results if _storage(tensor) not in self._current]
        if not written and not fresh:
            return  # a view
        flops = _flops(node)
        reads = self._reads(node, name, written)
        # One per storage: several results may be views of one.
        storages = {_storage(tensor): tensor for tensor in [*written, *fresh]}
        defined: dict[int, int] = {}
        for index, (storage, tensor) in enumerate(storages.items()):
            suffix = f".{index}" if index else ""
            buffer = self._define(storage, tensor, node.name + suffix)
            defined[buffer] = self._buffers[buffer]["size"]
        op = {"flops": float(flops), "reads": reads, "writes": defined, "label": node.name}
        self._ops.append(op | ({"pointwise": True} if _is_pointwise(node, name) else {}))

    def _reads(self, node: Any, name: str, written: Sequence[Any]) -> dict[int, int]:
        if name in _SHAPE_ONLY:
            return {}
        arguments = list(_values((_used_arguments(node, name), node.kwargs)))
        if name in _OVERWRITES and _bytes(arguments[0]) == arguments[0].untyped_storage().nbytes():
            arguments = arguments[1:]
        reads: dict[int, int] = {}
        views: set[tuple[Any, ...]] = set()
        for index, tensor in enumerate(arguments):
            view = (_storage(tensor), tensor.storage_offset(), tuple(tensor.shape), tuple(tensor.stride()))
            if view in views or not tensor.untyped_storage().nbytes():
                continue
            views.add(view)
            moved = _bytes(tensor)
            if name in _GATHERS and index == 0:
                moved = min(moved, sum(_bytes(result) for result in _values(node)))
            if any(tensor is other for other in written):
                moved = tensor.untyped_storage().nbytes()  # the new value holds what is not overwritten, too
            buffer = self._buffer(tensor)
            reads[buffer] = min(self._buffers[buffer]["size"], reads.get(buffer, 0) + moved)
        return reads

    def program(self) -> dict[str, Any]:
        """Return operations and buffers without what nothing uses."""
        for storage in self._is_input:
            self._outputs.add(self._current[storage])  # an input that was overwritten
        used, ops = set(self._outputs), []
        for op in reversed(self._ops):
            if used.isdisjoint(op["writes"]):
                continue
            op["writes"] = {b: moved for b, moved in op["writes"].items() if b in used}
            used.update(op["reads"])
            ops.append(op)
        ops.reverse()
        defined = {b for op in ops for b in op["writes"]}
        read = {b for op in ops for b in op["reads"]}
        kept = [b for b in range(len(self._buffers)) if b in defined or b in read]
        number = {buffer: index for index, buffer in enumerate(kept)}
        buffers = [self._buffers[b] | ({"output": True} if b in self._outputs and b in defined else {}) for b in kept]
        return {"ops": [self._plain(op, number) for op in ops], "buffers": buffers}

    def _plain(self, op: Mapping[str, Any], number: Mapping[int, int]) -> dict[str, Any]:
        plain = dict(op) | {key: [number[b] for b in op[key]] for key in ("reads", "writes")}
        if any(self._buffers[b]["size"] != moved for b, moved in op["reads"].items()):
            plain["read_bytes"] = list(op["reads"].values())
        return plain


def _values(arguments: Any) -> Iterable[Any]:
    """Return the tensors that a node, or any nest of nodes, stands for."""
    import torch
    from torch.fx import Node
    from torch.utils import _pytree as pytree

    leaves = pytree.tree_flatten(arguments, is_leaf=lambda item: isinstance(item, Node))[0]
    values = [leaf.meta.get("val") if isinstance(leaf, Node) else leaf for leaf in leaves]
    return [value for value in pytree.tree_flatten(values)[0] if isinstance(value, torch.Tensor)]


def _storage(tensor: Any) -> int:
    return int(tensor.untyped_storage()._cdata)


def _bytes(tensor: Any) -> int:
    """Return the bytes that a view shows; expanded dimensions count once."""
    shown = prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return int(min(shown * tensor.element_size(), tensor.untyped_storage().nbytes()))


def _mutated(node: Any, name: str) -> list[Any]:
    """Return the tensors that an operation writes in place."""
    if name == "native_batch_norm":  # its schema does not tell
        return list(_values([node.args[index] for index in _BATCH_NORM_STATISTICS])) if _in_training(node) else []
    found: list[Any] = []
    for index, argument in enumerate(node.target._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = node.args[index] if index < len(node.args) else node.kwargs.get(argument.name)
            found += _values(value)
    return found


def _used_arguments(node: Any, name: str) -> list[Any]:
    """Return the positional arguments without statistics that a gradient in training mode is given and does not use."""
    arguments = list(node.args)
    if name == "native_batch_norm_backward" and arguments[_BACKWARD_TRAINING]:
        for index in _BATCH_NORM_STATISTICS:
            arguments[index] = None
    return arguments


def _in_training(node: Any) -> bool:
    return bool(node.args[_BATCH_NORM_TRAINING])


def _is_pointwise(node: Any, name: str) -> bool:
    import torch

    if name == "native_batch_norm":
        return not _in_training(node)  # with given statistics, a factor and a summand per channel
    return name in _POINTWISE or torch.Tag.pointwise in node.target.tags


def _flops(node: Any) -> int:
    import torch
    from torch.fx import Node
    from torch.utils import _pytree as pytree
    from torch.utils.flop_counter import flop_registry

    packet = node.target.overloadpacket
    if _CPU_VARIANT in (name := packet.__name__):
        # Attention on a CPU takes the same arguments as attention elsewhere, which is what the registry knows.
        packet = getattr(torch.ops.aten, name.replace(_CPU_VARIANT, ""), packet)
    count = flop_registry.get(packet)
    if count is None:
        return 0
    args, kwargs = pytree.tree_map_only(Node, lambda item: item.meta["val"], (node.args, node.kwargs))
    return int(count(*args, **kwargs, out_val=node.meta["val"]))
