"""Workloads: the requests of a routing instance without a fleet, and what turns a trace into an instance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from schedrl.arrays import F64, I32, I64, Bool
from schedrl.devices.language_model import load_language_models
from schedrl.envs.routing.fleet import ServingInstance
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.errors import ConfigError, InstanceError

__all__ = ["Workload", "clipped", "prefix_hit_share", "rescaled", "route", "selected", "split_halves", "window"]

# Arrays with a value per request, their type, and what stands for it where a workload gives none.
_PER_REQUEST: dict[str, tuple[Any, float]] = {
    "prompt_tokens": (np.int32, 1),
    "output_tokens": (np.int32, 1),
    "pause_s": (np.float64, 0.0),
    "priority": (np.int32, 0),
    "tenant": (np.int32, 0),
    "tool": (np.int32, -1),
}
_RAGGED = (("block_start", "blocks", np.int64), ("after_start", "after", np.int32))
_LINK_BYTES_PER_S = 25e9


def _empty() -> Any:
    return np.zeros(0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Workload:
    """Requests in the order of their arrival, with the fields and defaults of ``RoutingInstance``.

    Arrays that are left empty are filled in. The values themselves are checked where an instance is built.

    Raises:
        InstanceError: no requests, or arrays whose lengths do not match.
    """

    arrival_s: F64  # (R,) never falling; requests with predecessors arrive later than that, after them
    prompt_tokens: I32  # (R,)
    output_tokens: I32  # (R,)
    block_start: I64 = field(default_factory=_empty)  # (R + 1,)
    blocks: I64 = field(default_factory=_empty)  # (Q,) ids of full blocks of prompt and answer, each with all before it
    block_tokens: int = 512
    program: I32 = field(default_factory=_empty)  # (R,) 0 to P - 1
    deadline_s: F64 = field(default_factory=_empty)  # (P,) inf for none
    after_start: I64 = field(default_factory=_empty)  # (R + 1,)
    after: I32 = field(default_factory=_empty)  # earlier requests of the same program
    pause_s: F64 = field(default_factory=_empty)  # (R,)
    priority: I32 = field(default_factory=_empty)  # (R,)
    tenant: I32 = field(default_factory=_empty)  # (R,)
    tool: I32 = field(default_factory=_empty)  # (R,)

    def __post_init__(self) -> None:
        arrival = np.array(self.arrival_s, dtype=np.float64)
        count = len(arrival)
        if count == 0:
            raise InstanceError("workload: field arrival_s: no requests")
        arrays: dict[str, Any] = {"arrival_s": arrival}
        for name, (dtype, default) in _PER_REQUEST.items():
            given = np.asarray(getattr(self, name))
            arrays[name] = given.astype(dtype) if len(given) else np.full(count, default, dtype=dtype)
        given = np.asarray(self.program)
        arrays["program"] = given.astype(np.int32) if len(given) else np.arange(count, dtype=np.int32)
        for start, flat, dtype in _RAGGED:
            starts = np.asarray(getattr(self, start))
            arrays[start] = starts.astype(np.int64) if len(starts) else np.zeros(count + 1, dtype=np.int64)
            arrays[flat] = np.asarray(getattr(self, flat)).astype(dtype)
        given = np.asarray(self.deadline_s, dtype=np.float64)
        programs = int(arrays["program"].max()) + 1
        arrays["deadline_s"] = given.copy() if len(given) else np.full(programs, np.inf)
        lengths = dict.fromkeys((*_PER_REQUEST, "program"), count) | {
            "block_start": count + 1,
            "after_start": count + 1,
        }
        lengths["deadline_s"] = programs
        for name, expected in lengths.items():
            if len(arrays[name]) != expected:
                raise InstanceError(f"workload: field {name}: {len(arrays[name])} values, expected {expected}")
        for name, values in arrays.items():
            values.flags.writeable = False
            object.__setattr__(self, name, values)

    @property
    def requests(self) -> int:
        """Number of requests R."""
        return len(self.arrival_s)

    @property
    def duration_s(self) -> float:
        """Seconds from the first arrival to the last."""
        return float(self.arrival_s[-1] - self.arrival_s[0])

    @property
    def requests_per_s(self) -> float:
        """Mean rate of arrival: gaps over the time they take; infinite if all arrive at once."""
        return (self.requests - 1) / self.duration_s if self.duration_s > 0 else np.inf


def window(
    workload: Workload,
    start_s: float = 0.0,
    end_s: float | None = None,
    *,
    first: int | None = None,
    count: int | None = None,
) -> Workload:
    """Return the requests of a window, whose arrivals then count from the start of the window.

    Args:
        workload: From which they are taken.
        start_s: Start of a window in time.
        end_s: Its end, exclusive; None for that of the workload.
        first: First request of a window in requests, instead of one in time; arrivals then count from its own.
        count: Requests of that window; None for all that remain.

    Raises:
        ConfigError: no request is in the window, or both kinds of window are asked for.
    """
    if first is None and count is None:
        low = int(np.searchsorted(workload.arrival_s, start_s))
        high = workload.requests if end_s is None else int(np.searchsorted(workload.arrival_s, end_s))
        if not 0 <= low < high:
            raise ConfigError(f"window {start_s} to {end_s} s: no request arrives in it")
        origin = start_s
    else:
        if start_s or end_s is not None:
            raise ConfigError("window: start_s or end_s beside first or count, expected either")
        low = 0 if first is None else first
        high = workload.requests if count is None else low + count
        if not 0 <= low < high <= workload.requests:
            raise ConfigError(f"window of requests {low} to {high}: the workload has 0 to {workload.requests}")
        origin = float(workload.arrival_s[low])
    keep = np.zeros(workload.requests, dtype=np.bool_)
    keep[low:high] = True
    taken = selected(workload, keep)
    return replace(taken, arrival_s=taken.arrival_s - origin)


def selected(workload: Workload, keep: Bool) -> Workload:
    """Return the requests that ``keep`` (R,) marks; predecessors that are not among them are forgotten."""
    index = np.flatnonzero(keep)
    programs, program = np.unique(workload.program[index], return_inverse=True)
    block_start, listed = _ragged_rows(workload.block_start, keep)
    after_start, named = _ragged_rows(workload.after_start, keep)
    position = np.cumsum(keep) - 1
    before = workload.after[named]
    present = keep[before]
    # Number of present predecessors up to each entry turns old borders into new ones.
    counted = np.concatenate([[0], np.cumsum(present)])
    return replace(
        workload,
        arrival_s=workload.arrival_s[index],
        **{name: getattr(workload, name)[index] for name in _PER_REQUEST},
        block_start=block_start,
        blocks=workload.blocks[listed],
        program=program.astype(np.int32),
        deadline_s=workload.deadline_s[programs],
        after_start=counted[after_start],
        after=position[before[present]],
    )


def _ragged_rows(starts: I64, keep: Bool) -> tuple[I64, Bool]:
    """Return the borders of the kept rows and (Q,) which entries belong to them."""
    counts = np.diff(starts)
    borders = np.concatenate([[0], np.cumsum(counts[keep])])
    return borders.astype(np.int64), np.repeat(keep, counts)


def rescaled(workload: Workload, requests_per_s: float) -> Workload:
    """Return the workload with arrivals stretched or squeezed from 0 on to a mean rate; pauses stay as they are.

    Raises:
        ConfigError: no positive rate, or all requests arrive at once.
    """
    if not 0 < requests_per_s < np.inf:
        raise ConfigError(f"requests_per_s: {requests_per_s!r}, expected a positive number")
    if not np.isfinite(workload.requests_per_s):
        raise ConfigError("requests_per_s: all requests arrive at once, there is no rate to change")
    return replace(workload, arrival_s=workload.arrival_s * (workload.requests_per_s / requests_per_s))


def clipped(workload: Workload, prompt_tokens: int) -> Workload:
    """Return the workload with prompts cut to at most ``prompt_tokens``; a cut prompt keeps its full blocks only.

    Raises:
        ConfigError: ``prompt_tokens`` below 1.
    """
    if prompt_tokens < 1:
        raise ConfigError(f"prompt_tokens: {prompt_tokens!r}, expected at least 1")
    counts = np.diff(workload.block_start)
    cut = workload.prompt_tokens > prompt_tokens
    left = np.where(cut, np.minimum(counts, prompt_tokens // workload.block_tokens), counts)
    rank = np.arange(len(workload.blocks)) - np.repeat(workload.block_start[:-1], counts)
    return replace(
        workload,
        prompt_tokens=np.minimum(workload.prompt_tokens, prompt_tokens),
        block_start=np.concatenate([[0], np.cumsum(left)]),
        blocks=workload.blocks[rank < np.repeat(left, counts)],
    )


def split_halves(workload: Workload) -> tuple[Workload, Workload]:
    """Return the first half of the requests (rounded down) and the second, each counted from its first arrival.

    Raises:
        ConfigError: a single request.
    """
    middle = workload.requests // 2
    return window(workload, first=0, count=middle), window(workload, first=middle)


def prefix_hit_share(workload: Workload) -> float:
    """Return the share of prompt tokens that one cache without limit would hit, were each request served at once."""
    counts = np.diff(workload.block_start)
    owner = np.repeat(np.arange(workload.requests), counts)
    rank = np.arange(len(workload.blocks)) - np.repeat(workload.block_start[:-1], counts)
    seen = np.ones(len(workload.blocks), dtype=np.bool_)
    seen[np.unique(workload.blocks, return_index=True)[1]] = False
    # The last token of a prompt is always computed, for it yields the first of the answer.
    usable = rank < ((workload.prompt_tokens - 1) // workload.block_tokens)[owner]
    hits = np.count_nonzero(seen & usable) * workload.block_tokens
    return float(hits / workload.prompt_tokens.sum(dtype=np.int64))


def route(
    workload: Workload,
    fleet: Sequence[ServingInstance],
    name: str,
    *,
    ttft_slo_s: float = 5.0,
    tpot_slo_s: float = np.inf,
    signal_refresh_s: float = 0.0,
    link_bytes_per_s: float = _LINK_BYTES_PER_S,
    preference: tuple[float, float, float] = (1.0, 0.0, 0.0),
) -> RoutingInstance:
    """Return the instance of a workload on a fleet.

    Keys and values take the bytes per token of the fleet's language model if that is in the catalogue, else 0.

    Args:
        workload: The requests.
        fleet: Serving instances, at least one.
        name: Name of the instance.
        ttft_slo_s: Service-level objective for the time to first token.
        tpot_slo_s: Service-level objective for the time per output token.
        signal_refresh_s: How often routers get to know the state of the instances.
        link_bytes_per_s: Bandwidth between instances; 200 Gbit/s unless given.
        preference: Weights of latency, cost and energy.

    Raises:
        InstanceError: the instance breaks a rule, such as a prompt beyond the memory of every serving instance.
    """
    models = load_language_models()
    model = models.get(fleet[0].model) if len(fleet) else None
    fields = ("arrival_s", *_PER_REQUEST, "program", "deadline_s", *(key for row in _RAGGED for key in row[:2]))
    return RoutingInstance(
        name=name,
        fleet=tuple(fleet),
        **{key: getattr(workload, key) for key in fields},
        block_tokens=workload.block_tokens,
        ttft_slo_s=ttft_slo_s,
        tpot_slo_s=tpot_slo_s,
        signal_refresh_s=signal_refresh_s,
        link_bytes_per_s=link_bytes_per_s,
        kv_bytes_per_token=float(model.kv_bytes_per_token) if model else 0.0,
        preference=preference,
    )
