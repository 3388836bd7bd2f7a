"""Small routing instances, and views of them with figures set by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from schedrl.arrays import I64
from schedrl.baselines.routing.router import View
from schedrl.devices.serving_time import COEFFICIENTS, CONTEXT, OVERHEAD, TOKEN
from schedrl.envs.routing.fleet import ServingInstance
from schedrl.envs.routing.instance import RoutingInstance

__all__ = ["HandView", "instances", "routed", "servings"]

BLOCK = 64


def servings(*slowness: float, **options: Any) -> tuple[ServingInstance, ...]:
    """Return instances that take 1, 2, ... times 0.1 ms per token, 1 ms per iteration and 1 us per token in context."""
    fleet = []
    for i, factor in enumerate(slowness):
        row = np.zeros(COEFFICIENTS)
        row[TOKEN], row[OVERHEAD], row[CONTEXT] = 1e-4 * factor, 1e-3 * factor, 1e-6 * factor
        fields: dict[str, Any] = {"kv_tokens": 4096, "token_budget": 256, "max_sequences": 8} | options
        fleet.append(ServingInstance(name=f"s{i}", device="any", model="any", coefficients=row, **fields))
    return tuple(fleet)


def routed(
    fleet: tuple[ServingInstance, ...],
    prompts: Sequence[Sequence[int]],
    *,
    gap_s: float = 0.01,
    tail: int = 8,
    output: int = 4,
    **settings: Any,
) -> RoutingInstance:
    """Return requests at equal gaps; each prompt is its blocks of 64 tokens and a tail of its own."""
    count = len(prompts)
    return RoutingInstance(
        name="small",
        fleet=fleet,
        arrival_s=np.arange(count) * gap_s,
        prompt_tokens=np.array([len(prompt) * BLOCK + tail for prompt in prompts], dtype=np.int32),
        output_tokens=np.full(count, output, dtype=np.int32),
        block_start=np.cumsum([0, *map(len, prompts)]),
        blocks=np.array([block for prompt in prompts for block in prompt], dtype=np.int64),
        block_tokens=BLOCK,
        **{"ttft_slo_s": 1.0} | settings,
    )


class HandView(View):
    """A view whose figures are given, 0 where they are not; requests keep their prompts."""

    def __init__(self, instance: RoutingInstance, **figures: Any) -> None:
        self.instance = instance
        self.count = len(instance.fleet)
        self.at_hand, self.moved, self.rank = 0, False, 0.0
        for name in (
            "waiting", "running", "pending_tokens", "context_tokens", "used_tokens", "free_tokens", "queued_tokens",
            "head_tokens", "outstanding", "sent_since", "sent_tokens", "hit_tokens", "predicted_ttft_s", "backlog_s",
        ):  # fmt: skip
            setattr(self, name, np.array(figures.pop(name, np.zeros(self.count))))
        self.allowed = np.array(figures.pop("allowed", np.ones(self.count)), dtype=np.bool_)
        assert not figures

    @property
    def request(self) -> int:
        """Number of the request at hand."""
        return self.at_hand

    @property
    def handed_over(self) -> bool:
        """Whether the prompt is computed."""
        return self.moved

    def set_rank(self, rank: float) -> None:
        """Note the rank."""
        self.rank = rank


@st.composite
def instances(draw: st.DrawFn) -> RoutingInstance:
    """Draw instances of a few requests that share prefixes, on one to four servings of two speeds."""
    slowness = draw(st.lists(st.sampled_from([1.0, 3.0]), min_size=1, max_size=4))
    options = draw(st.sampled_from([{}, {"cache_tokens": 512}, {"kv_tokens": 640}]))
    paths = st.lists(st.integers(0, 1), max_size=4)
    prompts: list[list[int]] = []
    for path in draw(st.lists(paths, min_size=1, max_size=12)):
        # The id of a block says which choices led to it.
        prompts.append([int("1" + "".join(map(str, path[: k + 1])), 2) for k in range(len(path))])
    fleet = servings(*slowness, **options)
    gap_s, refresh = draw(st.sampled_from([0.0, 0.02])), draw(st.sampled_from([0.0, 0.05]))
    return routed(fleet, prompts, gap_s=gap_s, output=draw(st.integers(1, 6)), signal_refresh_s=refresh)


def ids(*values: int) -> I64:
    """Return block ids."""
    return np.array(values, dtype=np.int64)
