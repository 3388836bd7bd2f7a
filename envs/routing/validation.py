"""The rules that a routing instance keeps, checked once when it is built."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from schedrl.arrays import Bool
from schedrl.envs.routing.fleet import ServingInstance
from schedrl.errors import InstanceError

if TYPE_CHECKING:
    from schedrl.envs.routing.instance import RoutingInstance

__all__ = ["normalise"]

_PAGE = 16


def normalise(
    instance: RoutingInstance, per_request: Mapping[str, tuple[Any, Any]], ragged: Sequence[tuple[str, str]]
) -> None:
    """Turn the fields of an instance into frozen arrays, fill in those left empty, and check all of them.

    Raises:
        InstanceError: a rule is broken; the message names instance, field and request.
    """
    where = instance.name
    _fleet(instance, where)
    _settings(instance, where)
    count = len(_array(instance.arrival_s, np.float64, f"{where}: field arrival_s"))
    if count == 0:
        raise InstanceError(f"{where}: field arrival_s: no requests")
    for name, (dtype, default) in per_request.items():
        values = _array(getattr(instance, name), dtype, f"{where}: field {name}")
        if len(values) == 0 and name not in ("arrival_s", "prompt_tokens", "output_tokens"):
            values = np.arange(count, dtype=dtype) if name == "program" else np.full(count, default, dtype=dtype)
        if len(values) != count:
            raise InstanceError(f"{where}: field {name}: {len(values)} values for {count} requests")
        _freeze(instance, name, values)
    for start, flat in ragged:
        _ragged(instance, start, flat, count, where)
    _requests(instance, where)
    _programs(instance, where)
    _memory(instance, where)


def _array(values: Any, dtype: Any, where: str) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(values)
    except ValueError:
        raise InstanceError(f"{where}: expected a list of numbers") from None
    kinds = "iu" if np.issubdtype(dtype, np.integer) else "iuf"
    if array.ndim != 1 or (array.size and array.dtype.kind not in kinds):
        kind = "integers" if kinds == "iu" else "numbers"
        raise InstanceError(f"{where}: expected a list of {kind}, got {array.dtype} {array.shape}")
    if dtype is np.int32 and array.size and max(-int(array.min()), int(array.max())) >= 2**31:
        raise InstanceError(f"{where}: a value outside int32")
    return np.array(array, dtype=dtype)


def _freeze(instance: RoutingInstance, name: str, values: np.ndarray[Any, Any]) -> None:
    values.flags.writeable = False
    object.__setattr__(instance, name, values)


def _fleet(instance: RoutingInstance, where: str) -> None:
    fleet = tuple(instance.fleet)
    object.__setattr__(instance, "fleet", fleet)
    if not fleet:
        raise InstanceError(f"{where}: field fleet: empty, expected at least one serving instance")
    for i, serving in enumerate(fleet):
        if not isinstance(serving, ServingInstance):
            raise InstanceError(f"{where}: field fleet[{i}]: expected a serving instance, got {serving!r:.40}")
    roles = {serving.role for serving in fleet}
    if roles == {"decode"} or ("prefill" in roles and roles == {"prefill"}):
        raise InstanceError(
            f"{where}: field fleet: all are {roles.pop()} instances, expected one of each role or mixed"
        )
    if "mixed" in roles and len(roles) > 1:
        raise InstanceError(f"{where}: field fleet: mixed beside prefill or decode instances, expected either")
    if "decode" in roles and all(math.isfinite(serving.retire_s) for serving in fleet if serving.role == "decode"):
        raise InstanceError(f"{where}: field fleet: all decode instances retire, expected one that stays")


def _settings(instance: RoutingInstance, where: str) -> None:
    if type(instance.block_tokens) is not int or instance.block_tokens < _PAGE or instance.block_tokens % _PAGE:
        raise InstanceError(
            f"{where}: field block_tokens: {instance.block_tokens!r}, expected a positive multiple of {_PAGE}"
        )
    for name in ("ttft_slo_s", "tpot_slo_s", "link_bytes_per_s"):
        value = getattr(instance, name)
        if not isinstance(value, (int, float)) or not value > 0:
            raise InstanceError(f"{where}: field {name}: {value!r}, expected a number above 0")
    for name in ("signal_refresh_s", "link_latency_s", "kv_bytes_per_token", "downtime_s"):
        value = getattr(instance, name)
        if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise InstanceError(f"{where}: field {name}: {value!r}, expected a finite number of at least 0")
    preference = tuple(instance.preference)
    good = len(preference) == 3 and all(isinstance(w, (int, float)) and 0 <= w < math.inf for w in preference)
    if not good or sum(preference) <= 0:
        raise InstanceError(
            f"{where}: field preference: {preference!r}, expected three weights of at least 0, not all 0"
        )
    object.__setattr__(instance, "preference", tuple(float(weight) for weight in preference))


def _ragged(instance: RoutingInstance, start_name: str, flat_name: str, count: int, where: str) -> None:
    starts = _array(getattr(instance, start_name), np.int64, f"{where}: field {start_name}")
    dtype = np.int64 if flat_name == "blocks" else np.int32
    flat = _array(getattr(instance, flat_name), dtype, f"{where}: field {flat_name}")
    if len(starts) == 0:
        starts = np.zeros(count + 1, dtype=np.int64)
    steps = np.diff(starts)
    if len(starts) != count + 1 or starts[0] != 0 or starts[-1] != len(flat) or (steps < 0).any():
        raise InstanceError(f"{where}: field {start_name}: expected {count + 1} rising positions from 0 to {len(flat)}")
    _freeze(instance, start_name, starts)
    _freeze(instance, flat_name, flat)


def _requests(instance: RoutingInstance, where: str) -> None:
    arrival = instance.arrival_s
    bad = ~np.isfinite(arrival) | (arrival < 0)
    _refuse(bad, arrival, f"{where}: field arrival_s", "a finite time of at least 0")
    falling = np.append(False, np.diff(arrival) < 0)
    _refuse(falling, arrival, f"{where}: field arrival_s", "no time before that of the request in front of it")
    for name in ("prompt_tokens", "output_tokens"):
        values = getattr(instance, name)
        _refuse(values < 1, values, f"{where}: field {name}", "at least 1")
    pause = instance.pause_s
    _refuse(~np.isfinite(pause) | (pause < 0), pause, f"{where}: field pause_s", "a finite time of at least 0")
    room = instance.prompt_tokens.astype(np.int64) + instance.output_tokens + instance.block_tokens - 1
    listed = np.diff(instance.block_start)
    _refuse(
        listed > room // instance.block_tokens,
        listed,
        f"{where}: field blocks",
        f"no more blocks of {instance.block_tokens} tokens than the request has",
    )
    if (instance.blocks < 0).any():
        raise InstanceError(f"{where}: field blocks: a negative id, expected at least 0")
    _chains(instance, where)


def _chains(instance: RoutingInstance, where: str) -> None:
    """Check that an id always has the same id in front of it, as it stands for a block and all before it."""
    blocks = instance.blocks
    if len(blocks) == 0:
        return
    front = np.concatenate([[-1], blocks[:-1]])
    starts = instance.block_start[:-1]
    front[starts[starts < instance.block_start[1:]]] = -1
    _, first, block = np.unique(blocks, return_index=True, return_inverse=True)
    bad = front != front[first][block]
    if bad.any():
        k = int(np.argmax(bad))
        r = int(np.searchsorted(instance.block_start, k, side="right")) - 1
        raise InstanceError(
            f"{where}: field blocks: request {r} has block {blocks[k]} behind {front[k]}, expected it behind"
            f" {front[first][block][k]} as in a request before (-1: at the beginning)"
        )


def _refuse(bad: Bool, values: Any, where: str, expected: str) -> None:
    if bad.any():
        r = int(np.flatnonzero(bad)[0])
        raise InstanceError(f"{where}: request {r} has {values[r]}, expected {expected}")


def _programs(instance: RoutingInstance, where: str) -> None:
    program = instance.program
    programs = int(program.max()) + 1
    if program.min() < 0 or len(np.unique(program)) != programs:
        raise InstanceError(f"{where}: field program: expected numbers from 0 without a gap")
    deadline = _array(instance.deadline_s, np.float64, f"{where}: field deadline_s")
    if len(deadline) == 0:
        deadline = np.full(programs, math.inf)
    if len(deadline) != programs:
        raise InstanceError(f"{where}: field deadline_s: {len(deadline)} values for {programs} programs")
    if not (deadline > 0).all():
        raise InstanceError(f"{where}: field deadline_s: program {int(np.argmin(deadline > 0))}: expected above 0")
    _freeze(instance, "deadline_s", deadline)
    owner = np.repeat(np.arange(len(program)), np.diff(instance.after_start))
    before = instance.after
    if ((before < 0) | (before >= owner)).any():
        k = int(np.flatnonzero((before < 0) | (before >= owner))[0])
        raise InstanceError(f"{where}: field after: request {owner[k]} names {before[k]}, expected an earlier request")
    if (program[before] != program[owner]).any():
        k = int(np.flatnonzero(program[before] != program[owner])[0])
        raise InstanceError(f"{where}: field after: request {owner[k]} names one of another program")


def _memory(instance: RoutingInstance, where: str) -> None:
    fits = instance.fits.any(axis=1)
    need = instance.prompt_tokens.astype(np.int64) + instance.output_tokens
    if not fits.all():
        r, most = int(np.argmin(fits)), max(serving.kv_tokens for serving in instance.fleet)
        raise InstanceError(
            f"{where}: field prompt_tokens: request {r} has {instance.prompt_tokens[r]} prompt and"
            f" {instance.output_tokens[r]} output tokens, more than fit in the memory of any instance ({most} tokens)"
        )
    decode = [serving.kv_tokens for serving in instance.fleet if serving.role == "decode"]
    if decode and int(need.max()) + _PAGE > min(decode):
        r = int(np.argmax(need))
        raise InstanceError(f"{where}: field fleet: request {r} of {need[r]} tokens does not fit a decode instance")
