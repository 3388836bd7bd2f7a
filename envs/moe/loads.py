"""Measured expert loads before they become an instance: their checks, and the cluster and model that they run on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from schedrl.arrays import I64, Bool
from schedrl.devices import uniform_cluster
from schedrl.envs.moe.instance import MAX_COUNT, ExpertPlacementInstance
from schedrl.envs.moe.model import MoEModel
from schedrl.errors import InstanceError

__all__ = ["LoadDump", "as_counts", "instance_of_loads", "refuse_one_rank"]


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadDump:
    """Tokens that each expert got, as an engine or a data set recorded them; nothing about models or clusters.

    Raises:
        InstanceError: the counts break a rule of ``as_counts``; the message starts with ``source``.
    """

    counts: I64  # (W, L, E) tokens per window
    source: str
    """file that they came from"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", as_counts(self.counts, f"{self.source}: field counts"))


def as_counts(values: Any, where: str) -> I64:
    """Return counts (W, L, E) from an array or nested lists of them; (L, E) is one window.

    Args:
        values: What the file holds; integers, or floating-point numbers without a fraction.
        where: File and field, the start of every message.

    Raises:
        InstanceError: ragged, of another shape, empty, without any token, or a value that is NaN, negative, no
            integer or beyond ``MAX_COUNT``.
    """
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError):
        raise InstanceError(f"{where}: rows of unequal length, expected a full array") from None
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise InstanceError(
            f"{where}: shape {array.shape}, expected (windows, layers, experts) or (layers, experts), none of them 0"
        )
    if array.ndim == 2:
        array = array[None]
    if array.dtype.kind not in "iuf":
        raise InstanceError(f"{where}: expected integers, got {array.dtype}")
    if array.dtype.kind == "f":
        _refuse(array, ~np.isfinite(array), where, "expected a finite integer")
    _refuse(array, array < 0, where, "expected at least 0")
    _refuse(array, array > MAX_COUNT, where, f"expected at most {MAX_COUNT}")
    if array.dtype.kind == "f":
        _refuse(array, array != np.floor(array), where, "expected an integer")
    if not array.any():
        raise InstanceError(f"{where}: all zero: nothing was recorded, or this is the dump of a rank without tokens")
    counts: I64 = np.array(array, dtype=np.int64)
    counts.flags.writeable = False
    return counts


def _refuse(array: np.ndarray[Any, Any], bad: np.ndarray[Any, Any], where: str, expected: str) -> None:
    if bad.any():
        window, layer, expert = np.argwhere(bad)[0]
        value = array[window, layer, expert]
        raise InstanceError(f"{where}: window {window} layer {layer} expert {expert} has {value}, {expected}")


def refuse_one_rank(counts: I64, where: str) -> None:
    """Refuse a dump in which most experts never get a token in any layer.

    SGLang's ranks may each write only what their own experts saw, with zeros for all others (sgl-project/sglang
    issue 5524). A balancer would take those experts for idle ones.

    Args:
        counts: (W, L, P) tokens per window, layer and expert or slot.
        where: File and field, the start of the message.

    Raises:
        InstanceError: half of them or more have none in two or more layers.
    """
    silent: Bool = counts.sum(axis=(0, 1)) == 0  # (P,)
    if counts.shape[1] > 1 and 2 * int(silent.sum()) >= len(silent):
        raise InstanceError(
            f"{where}: {silent.sum()} of {len(silent)} experts have no token in any layer: the dump of one rank, "
            "expected the sum over all ranks"
        )


def instance_of_loads(
    dump: LoadDump,
    *,
    model: MoEModel,
    device: str,
    nodes: int,
    per_node: int,
    redundant: int,
    planned: int,
    iterations: int,
) -> ExpertPlacementInstance:
    """Return the placement instance of recorded loads on equal nodes, with equally many slots on every device.

    Leading layers without tokens are dropped where the dump counts the model's dense layers too, as SGLang's does.

    Args:
        dump: The loads; the instance is named after their file.
        model: What they were recorded on; the dump may lack layers at its end.
        device: Name in the device catalogue.
        nodes: Number of nodes.
        per_node: Devices of each node.
        redundant: Slots per layer beyond one for each expert.
        planned: Windows that are known before the first plan.
        iterations: Forward passes per window.

    Raises:
        InstanceError: another number of experts, too many layers, fewer slots than experts, slots that do not divide
            among the devices, devices none of whose experts has a token, or a field outside its range.
        UnknownNameError: no such device.
        ConfigError: the device has no network figures, or there are no nodes.
    """
    counts = _expert_layers(dump, model)
    if counts.shape[2] != model.experts:
        raise InstanceError(
            f"{dump.source}: field counts: {counts.shape[2]} experts, model {model.name} has {model.experts}"
        )
    cluster = uniform_cluster(device, nodes=nodes, per_node=per_node)
    if redundant < 0:
        raise InstanceError(
            f"{dump.source}: field redundant: {redundant} leaves fewer slots than experts, expected at least 0"
        )
    slots, rest = divmod(model.experts + redundant, cluster.devices)
    if rest:
        raise InstanceError(
            f"{dump.source}: field redundant: {model.experts} experts and {redundant} redundant ones do not divide "
            f"among {cluster.devices} devices; {redundant + cluster.devices - rest} would"
        )
    _refuse_silent_device(counts, cluster.devices, dump.source)
    try:
        return ExpertPlacementInstance(
            name=Path(dump.source).name.partition(".")[0] or "loads",
            model=model,
            cluster=cluster,
            slots=np.full(cluster.devices, slots, dtype=np.int32),
            counts=counts,
            planned=planned,
            iterations=iterations,
        )
    except InstanceError as error:
        raise InstanceError(f"{dump.source}: {error}") from None


def _expert_layers(dump: LoadDump, model: MoEModel) -> I64:
    layers, dense = dump.counts.shape[1], model.first_layer
    if layers <= model.layers:
        return dump.counts
    if layers != model.layers + dense:
        raise InstanceError(
            f"{dump.source}: field counts: {layers} layers, model {model.name} has {model.layers} with experts"
        )
    if (busy := np.flatnonzero(dump.counts[:, :dense].any(axis=(0, 2)))).size:
        raise InstanceError(
            f"{dump.source}: field counts: layer {busy[0]} has tokens, the first {dense} of {model.name} are dense"
        )
    return dump.counts[:, dense:]


def _refuse_silent_device(counts: I64, devices: int, source: str) -> None:
    """Refuse loads in which all experts of a rank of the trivial placement are idle: a rank that did not report."""
    own, rest = divmod(counts.shape[2], devices)
    if rest or own < 2 or counts.shape[1] < 2:
        return
    silent: Sequence[int] = np.flatnonzero(~counts.any(axis=(0, 1)).reshape(devices, own).any(axis=1)).tolist()
    if silent:
        first = silent[0] * own
        raise InstanceError(
            f"{source}: field counts: experts {first} to {first + own - 1} have no token in any layer: rank "
            f"{silent[0]} of {devices} did not report, expected the sum over all ranks"
        )
