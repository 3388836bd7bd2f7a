"""Request routing: a fleet of serving instances and a workload of requests, each of which goes to one instance."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np

from schedrl.arrays import F64, I32, I64
from schedrl.envs.routing.fleet import ServingInstance, serving_instance_from_dict, serving_instance_to_dict
from schedrl.errors import InstanceError

__all__ = ["PAGE_TOKENS", "SCHEMA", "RoutingInstance"]

SCHEMA = "schedrl/routing-instance/1"
PAGE_TOKENS = 16
"""tokens of a page, in which engines hand out memory (vLLM's default block size)"""

_SETTINGS = (
    "block_tokens", "ttft_slo_s", "tpot_slo_s", "signal_refresh_s", "link_bytes_per_s", "link_latency_s",
    "kv_bytes_per_token", "downtime_s",
)  # fmt: skip
_MAY_BE_INFINITE = ("ttft_slo_s", "tpot_slo_s", "link_bytes_per_s")
# Arrays with a value per request and what stands for it where an instance gives none.
_PER_REQUEST: dict[str, tuple[Any, Any]] = {
    "arrival_s": (np.float64, None),
    "prompt_tokens": (np.int32, None),
    "output_tokens": (np.int32, None),
    "program": (np.int32, None),
    "pause_s": (np.float64, 0.0),
    "priority": (np.int32, 0),
    "tenant": (np.int32, 0),
    "tool": (np.int32, -1),
}
_RAGGED = (("block_start", "blocks"), ("after_start", "after"))


@dataclass(frozen=True, kw_only=True, eq=False)
class RoutingInstance:
    """Send requests to serving instances as they arrive, so that they meet their service-level objectives.

    A request arrives at ``arrival_s``; one that names predecessors (``after``) arrives ``pause_s`` after the last of
    them is finished. Its prompt is computed in chunks that share iterations with the decoding of others, then one token
    per iteration follows. Leading ``blocks`` of a prompt that an instance still holds need not be computed again.

    Requests of a ``program`` belong together: turns of a conversation, or steps of an agent. Where ``deadline_s`` of
    the program is finite its requests are judged together, by the time from the first arrival to the last token;
    otherwise each is judged by time to first token (TTFT) and time per output token (TPOT).

    Raises:
        InstanceError: a field breaks one of these rules; the message names field and request.
    """

    name: str
    fleet: tuple[ServingInstance, ...]
    arrival_s: F64  # (R,) never falling
    prompt_tokens: I32  # (R,) at least 1
    output_tokens: I32  # (R,) at least 1
    block_start: I64 = field(default_factory=lambda: np.zeros(0, dtype=np.int64))  # (R + 1,) or empty for no blocks
    blocks: I64 = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """(Q,) ids of the blocks of ``block_tokens`` tokens of each prompt, and of the answer behind it where they are
    known; an id stands for the block and all before it"""
    block_tokens: int = 512
    program: I32 = field(default_factory=lambda: np.zeros(0, dtype=np.int32))  # (R,) 0 to P - 1; empty: one each
    deadline_s: F64 = field(default_factory=lambda: np.zeros(0))  # (P,) inf for none; empty for none at all
    after_start: I64 = field(default_factory=lambda: np.zeros(0, dtype=np.int64))  # (R + 1,) or empty
    after: I32 = field(default_factory=lambda: np.zeros(0, dtype=np.int32))  # earlier requests of the same program
    pause_s: F64 = field(default_factory=lambda: np.zeros(0))  # (R,) or empty
    priority: I32 = field(default_factory=lambda: np.zeros(0, dtype=np.int32))  # (R,) higher is more urgent; or empty
    tenant: I32 = field(default_factory=lambda: np.zeros(0, dtype=np.int32))  # (R,) or empty
    tool: I32 = field(default_factory=lambda: np.zeros(0, dtype=np.int32))  # (R,) tool used during the pause, -1 none
    ttft_slo_s: float = 5.0
    tpot_slo_s: float = math.inf
    signal_refresh_s: float = 0.0
    """how often routers get to know the state of the instances; 0 is at once"""
    link_bytes_per_s: float = math.inf
    """bandwidth between instances, for keys and values that move"""
    link_latency_s: float = 0.0
    kv_bytes_per_token: float = 0.0
    downtime_s: float = 0.025
    """for how long a request that moves while it decodes stands still"""
    preference: tuple[float, float, float] = (1.0, 0.0, 0.0)
    """weights of latency, cost and energy in the objective"""

    def __post_init__(self) -> None:
        from schedrl.envs.routing.validation import normalise

        normalise(self, _PER_REQUEST, _RAGGED)

    @property
    def requests(self) -> int:
        """Number of requests R."""
        return len(self.arrival_s)

    @property
    def programs(self) -> int:
        """Number of programs P."""
        return len(self.deadline_s)

    @property
    def size_label(self) -> str:
        """Size group in tables."""
        return f"{self.requests} on {len(self.fleet)}"

    @cached_property
    def fits(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """(R, I) whether an instance's memory holds the whole request, and it takes new ones."""
        need = self.prompt_tokens.astype(np.int64) + self.output_tokens + PAGE_TOKENS
        rooms = np.array([serving.kv_tokens for serving in self.fleet])
        takes = np.array([serving.role != "decode" for serving in self.fleet])
        return np.asarray((need[:, None] <= rooms[None, :]) & takes[None, :], dtype=np.bool_)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RoutingInstance):
            return NotImplemented
        return self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.name, self.arrival_s.tobytes(), self.prompt_tokens.tobytes(), self.fleet))

    def to_json(self) -> str:
        """Return versioned JSON; infinite numbers are null."""
        data: dict[str, Any] = {"schema": SCHEMA, "name": self.name}
        data["fleet"] = [serving_instance_to_dict(serving) for serving in self.fleet]
        for name in _SETTINGS:
            value = getattr(self, name)
            data[name] = None if math.isinf(value) else value
        data["preference"] = list(self.preference)
        for name in (*_PER_REQUEST, *(name for pair in _RAGGED for name in pair)):
            data[name] = getattr(self, name).tolist()
        data["deadline_s"] = [None if math.isinf(value) else value for value in self.deadline_s.tolist()]
        return json.dumps(data)

    @classmethod
    def from_json(cls, text: str, *, source: str = "<json>") -> Self:
        """Read ``to_json`` output.

        Raises:
            InstanceError: not JSON, another schema, or a bad field.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InstanceError(f"{source}: not valid JSON: {error}") from None
        found = data.pop("schema", None) if isinstance(data, dict) else None
        if found != SCHEMA:
            raise InstanceError(f"{source}: field schema: expected {SCHEMA!r}, got {found!r:.60}")
        return cls(**_fields(data, source, cls))


def _fields(data: dict[str, Any], source: str, cls: type[RoutingInstance]) -> dict[str, Any]:
    known = set(cls.__dataclass_fields__)
    if unknown := sorted(set(data) - known):
        raise InstanceError(f"{source}: field {unknown[0]}: unknown")
    if missing := [
        name for name in ("name", "fleet", "arrival_s", "prompt_tokens", "output_tokens") if name not in data
    ]:
        raise InstanceError(f"{source}: field {missing[0]}: missing")
    if not isinstance(data["name"], str):
        raise InstanceError(f"{source}: field name: expected str, got {data['name']!r:.40}")
    if not isinstance(data["fleet"], list):
        raise InstanceError(f"{source}: field fleet: expected a list, got {data['fleet']!r:.40}")
    fleet = [serving_instance_from_dict(item, f"{source}: fleet[{i}]") for i, item in enumerate(data["fleet"])]
    infinite = {name: math.inf for name in _MAY_BE_INFINITE if data.get(name, 0) is None}
    deadline = data.get("deadline_s", [])
    if not isinstance(deadline, list):
        raise InstanceError(f"{source}: field deadline_s: expected a list, got {deadline!r:.40}")
    deadlines = [math.inf if value is None else value for value in deadline]
    return data | infinite | {"fleet": tuple(fleet), "deadline_s": deadlines}
