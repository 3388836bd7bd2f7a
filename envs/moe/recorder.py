"""Dumps of SGLang's expert distribution recorder, in all of its modes.

``stat`` dumps hold ``logical_count``, already summed over ranks. In ``per_pass`` and ``per_token`` mode every rank
writes its own file of ``records``, with tokens per physical slot, and the ``last_physical_to_logical_map``; the counts
of one forward pass are the sum over ranks, so a folder of all their files is read as one recording.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from schedrl.arrays import I64
from schedrl.envs.moe.loads import as_counts, refuse_one_rank
from schedrl.envs.moe.torch_archive import TorchArchive, open_archive
from schedrl.errors import InstanceError

__all__ = ["read_recorder"]

_Passes = dict[int, dict[tuple[Any, Any], np.ndarray[Any, Any]]]


def read_recorder(path: Path) -> I64:
    """Return tokens per expert (W, L, E) of a ``.pt`` file, or of the files that the ranks wrote into one folder.

    A window is a step of the buffer in ``stat`` mode, and one forward pass otherwise, in order of its number.

    Raises:
        InstanceError: unreadable, no recorder dump, broken counts or maps, the same record twice, files of different
            maps, or a dump of one rank alone; the message names file and field.
    """
    files = sorted(path.glob("*.pt")) if path.is_dir() else [path]
    if not files:
        raise InstanceError(f"{path}: no file, expected at least one *.pt")
    passes: _Passes = {}
    shared: np.ndarray[Any, Any] | None = None
    for file in files:
        with open_archive(file) as archive:
            data = archive.data
            if not isinstance(data, dict) or not ({"logical_count", "records"} & set(data)):
                raise InstanceError(f"{file}: no recorder dump, expected a table with logical_count or records")
            if "logical_count" in data:
                if len(files) > 1:
                    raise InstanceError(f"{file}: field logical_count: already a sum over ranks, read it alone")
                return _logical_count(archive)
            experts = _slot_map(archive)
            if shared is not None and not np.array_equal(shared, experts):
                raise InstanceError(f"{file}: field last_physical_to_logical_map: differs from that of {files[0]}")
            shared = experts
            _add_records(archive, experts.shape, passes)
    assert shared is not None
    return _sum_of_ranks(passes, shared, str(path))


def _logical_count(archive: TorchArchive) -> I64:
    where = f"{archive.source}: field logical_count"
    counts = as_counts(archive.array(archive.data["logical_count"], "logical_count"), where)
    refuse_one_rank(counts, where)
    return counts


def _slot_map(archive: TorchArchive) -> np.ndarray[Any, Any]:
    """Return the expert of each slot, (L, P), every expert of every layer present."""
    field = "last_physical_to_logical_map"
    where, experts = f"{archive.source}: field {field}", archive.array(archive.data.get(field), field)
    if experts.ndim != 2 or not experts.size or experts.dtype.kind not in "iu":
        raise InstanceError(f"{where}: {experts.dtype} of shape {experts.shape}, expected integers (layers, slots)")
    if experts.min() < 0 or experts.max() >= experts.shape[1]:
        raise InstanceError(f"{where}: an expert outside 0 to {experts.shape[1] - 1}, expected no more than slots")
    for layer, row in enumerate(experts):
        missing = np.setdiff1d(np.arange(experts.max() + 1), row)
        if missing.size:
            raise InstanceError(f"{where}: layer {layer} has no slot for expert {missing[0]}")
    return experts.astype(np.int64)


def _add_records(archive: TorchArchive, shape: tuple[int, ...], passes: _Passes) -> None:
    records = archive.data["records"]
    if not isinstance(records, list) or not records:
        raise InstanceError(f"{archive.source}: field records: expected a list of at least one forward pass")
    for index, record in enumerate(records):
        field = f"records[{index}]"
        if not isinstance(record, dict) or type(record.get("forward_pass_id")) is not int:
            raise InstanceError(f"{archive.source}: field {field}.forward_pass_id: missing, expected an integer")
        counts = archive.array(record.get("global_physical_count"), f"{field}.global_physical_count")
        where = f"{archive.source}: field {field}.global_physical_count"
        if counts.shape != shape:
            raise InstanceError(f"{where}: shape {counts.shape}, the slot map has {shape}")
        # Nothing recorded by one rank in one pass is normal; in all of them it is not.
        ranks = passes.setdefault(record["forward_pass_id"], {})
        key = (str(record.get("rank")), str(record.get("gatherer_key")))
        if key in ranks:
            raise InstanceError(f"{where}: pass {record['forward_pass_id']} of rank {key[0]} was recorded twice")
        ranks[key] = as_counts(counts, where)[0] if counts.any() else np.zeros(shape, dtype=np.int64)


def _sum_of_ranks(passes: _Passes, experts: np.ndarray[Any, Any], source: str) -> I64:
    field = f"{source}: field global_physical_count"
    slots = np.array([np.sum(list(passes[number].values()), axis=0) for number in sorted(passes)])  # (W, L, P)
    refuse_one_rank(slots, field)
    counts = np.zeros((*slots.shape[:2], int(experts.max()) + 1), dtype=np.int64)
    layers = np.arange(slots.shape[1])[:, None]
    for window, tokens in zip(counts, slots, strict=True):
        np.add.at(window, (layers, experts), tokens)
    return as_counts(counts, field)
