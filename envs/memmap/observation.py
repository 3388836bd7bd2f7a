"""What a policy sees of the mapping game: the feature table and the static graph of operations and buffers."""

from __future__ import annotations

import numpy as np

from schedrl.arrays import F32, F64
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import op_latency_s
from schedrl.envs.memmap.prices import shadow_prices
from schedrl.graphs import Feature, FeatureTable, StaticGraph

__all__ = ["EDGE_TYPES", "FEATURES", "most_edges", "static_graph"]

EDGE_TYPES = ("read", "read by", "write", "written by", "next operation", "previous operation")


def _share(name: str, why: str) -> Feature:
    return Feature(name=name, unit="ratio", low=0.0, high=1.0, why=why)


def _signed(name: str, why: str) -> Feature:
    return Feature(name=name, unit="ratio", low=-1.0, high=1.0, why=why)


# "per operation" divides by the mean latency of an operation without fast memory; x / (1 + |x|) bounds what has no
# natural bound. Priced figures use the shadow prices of ``prices.py``.
FEATURES = FeatureTable(
    node=(
        _share("operation", "the node is an operation"),
        _share("buffer", "the node is a buffer"),
        _share("position", "operation number, or that of the definition, per number of operations"),
        _share("latency", "an operation's latency without fast memory, per operation, bounded"),
        _share("computing", "compute time per latency without fast memory"),
        _share("price", "price of the whole fast layer at the operation, per operation, bounded"),
        _share("weight", "how far the operation stays bound by memory in the relaxation"),
        _share("accesses", "number of operands and results, or of a buffer's accesses, bounded"),
        _share("size", "buffer size per size and capacity of the first fast layer"),
        _share("lifetime", "operations from the first to the last access, per number of operations"),
        _share("input", "a parameter or input"),
        _share("output", "must be valid in the slow layer at the end"),
        _share("worth", "seconds saved were all accesses of the buffer fast, per operation, bounded"),
        _share("chosen", "share of the buffer's accesses that the relaxation serves from a fast layer"),
    ),
    edge_types=EDGE_TYPES,
    edge=(),
    candidate_nodes=("operation", "buffer"),
    candidate=(
        _share("no copy", "produce or keep in the fast layer"),
        _share("copy", "fetch before the access, or produce and copy back"),
        _share("drop", "leave the access to the slow layer"),
        _share("result", "the access is a result"),
        _share("layer", "number of the layer, per largest"),
        _share("saved share", "share of the operation's present latency that the choice saves at once"),
        _share("saved", "the same, all trips, per operation, bounded"),
        _signed("advantage", "priced advantage over the slow layer, per operation, bounded"),
        _signed("advantage per copy", "priced advantage per copy time of the buffer, bounded"),
        _share("displaced", "priced seconds lost by displacing others, per operation, bounded"),
        _signed("net advantage", "advantage less what is displaced, per copy time, bounded"),
        _share("size", "size per capacity of the layer, of the first fast one for the slow"),
        _share("offset", "offset per capacity"),
        _share("window", "operations that hide the copy, bounded"),
        _share("window load", "copy time per time hidden in the window"),
        _share("copy time", "copy time per operation, bounded"),
        _share("rent", "price of the place from now to the next use per gain there, bounded"),
        _share("write back", "a copy back comes with the choice"),
        _share("hint", "the choice is that of the plan without offsets"),
    ),
    context=(
        _share("progress", "decided accesses per accesses"),
        _share("saved", "latency saved so far per latency without fast memory"),
        _share("capacity", "capacity of the first fast layer per size of all buffers and capacity"),
        _share("bandwidth ratio", "slow per fast bandwidth"),
        _share("free", "free bytes of the first fast layer at the operation, kept places counted as free"),
        _share("kept", "bytes of the first fast layer that buffers are kept in for a later use"),
        _share("queue", "copying still to do when the operation begins, per operation, bounded"),
        _share("idle soon", "copying that the next 8 operations hide, per 8 operations, bounded"),
        _share("price", "price of the first fast layer at the operation, per operation, bounded"),
        _share("price soon", "mean price over the next 16 operations, the same way"),
        _share("computing", "compute time per present latency of the operation"),
        _share("latency", "present latency of the operation, per operation, bounded"),
        _share("result", "the access is a result"),
        _share("next use", "operations to the buffer's next access, bounded; 1 when there is none"),
        _share("last use", "operations to the buffer's last access, per number of operations"),
        _share("uses left", "accesses of the buffer after this one, bounded"),
        _share("output", "the buffer must be valid in the slow layer at the end"),
        _share("valid", "the slow layer holds a valid copy"),
        _share("resident", "the buffer is kept in a fast layer"),
        _share("worth", "seconds saved were all accesses of the buffer fast, per operation, bounded"),
        _signed("relaxed advantage", "priced advantage of the first fast layer over the slow one, per copy, bounded"),
        _share("group", "the access belongs to an alias group"),
        _share("backups", "back-ups so far, bounded"),
        _share("hint fast", "the plan without offsets serves the access from a fast layer"),
        _share("hint holds", "that plan keeps the buffer in its layer until the next access"),
    ),
)


def _bounded(values: F64) -> F64:
    bounded: F64 = values / (1.0 + np.abs(values))
    return bounded


def static_graph(instance: MemoryMapInstance) -> StaticGraph:
    """Return the graph of an instance: operations, then buffers; edges for accesses and the order of operations."""
    ops, buffers = instance.ops, instance.buffers
    nodes = np.concatenate([_op_features(instance), _buffer_features(instance)])
    op, buffer = instance.access_op.astype(np.int64), instance.access_buffer.astype(np.int64) + ops
    write = instance.access_write
    pairs = (
        (buffer[~write], op[~write]),
        (op[~write], buffer[~write]),
        (op[write], buffer[write]),
        (buffer[write], op[write]),
        (np.arange(ops - 1), np.arange(1, ops)),
        (np.arange(1, ops), np.arange(ops - 1)),
    )
    assert len(nodes) == ops + buffers
    edges = [np.stack([np.asarray(source), np.asarray(target)]) for source, target in pairs]
    return StaticGraph(
        node_features=np.clip(nodes, 0.0, 1.0).astype(np.float32),
        edge_index=np.concatenate(edges, axis=1).astype(np.int32),
        edge_type=np.repeat(np.arange(len(pairs), dtype=np.int8), [edge.shape[1] for edge in edges]),
        edge_features=np.zeros((sum(edge.shape[1] for edge in edges), 0), dtype=np.float32),
    )


def most_edges(instance: MemoryMapInstance) -> int:
    """Return the most edges of an instance as large as this one: programs of a size vary in their accesses."""
    return 2 * (instance.ops - 1) + 4 * instance.accesses


def _table(rows: int, columns: dict[str, F64]) -> F32:
    names = [feature.name for feature in FEATURES.node]
    table = np.zeros((rows, len(names)))
    for name, values in columns.items():
        table[:, names.index(name)] = values
    return table.astype(np.float32)


def _op_features(instance: MemoryMapInstance) -> F32:
    prices, _ = shadow_prices(instance)
    assert instance.trips is not None
    slow = op_latency_s(instance, np.zeros(instance.accesses, dtype=np.int8))
    mean = max(float((instance.trips * slow).mean()), 1e-300)
    price = np.diff(prices.held[1]) * (instance.memory.layers[1].capacity_bytes or 0)
    ops = np.arange(instance.ops)
    return _table(
        instance.ops,
        {
            "operation": np.ones(instance.ops),
            "position": ops / instance.ops,
            "latency": _bounded(instance.trips * slow / mean),
            "computing": instance.compute / np.maximum(slow, 1e-300),
            "price": _bounded(price / mean),
            "weight": prices.weight,
            "accesses": _bounded(np.diff(instance.op_offset) / 4.0),
        },
    )


def _buffer_features(instance: MemoryMapInstance) -> F32:
    prices, _ = shadow_prices(instance)
    assert instance.trips is not None
    slow = op_latency_s(instance, np.zeros(instance.accesses, dtype=np.int8))
    mean = max(float((instance.trips * slow).mean()), 1e-300)
    offset, order = instance.by_buffer
    count = np.diff(offset)
    used = count > 0
    first, last = np.zeros(instance.buffers), np.zeros(instance.buffers)
    first[used] = instance.access_op[order[offset[:-1][used]]]
    last[used] = instance.access_op[order[offset[1:][used] - 1]]
    chosen = np.bincount(instance.access_buffer, weights=prices.chosen > 0, minlength=instance.buffers)
    gain = np.bincount(
        instance.access_buffer, weights=np.maximum(prices.gain[:, 1:].max(axis=1), 0.0), minlength=instance.buffers
    )
    capacity = float(instance.memory.layers[1].capacity_bytes or 0)
    return _table(
        instance.buffers,
        {
            "buffer": np.ones(instance.buffers),
            "position": np.maximum(instance.definition, 0) / instance.ops,
            "accesses": _bounded(count / 4.0),
            "size": instance.size / (instance.size + capacity),
            "lifetime": (last - first) / instance.ops,
            "input": (instance.definition < 0).astype(np.float64),
            "output": instance.output.astype(np.float64),
            "worth": _bounded(gain / mean),
            "chosen": chosen / np.maximum(count, 1),
        },
    )
