"""A router that gives up on few long prompts so that the others are in time: triage.

Where goodput asks that nine of ten requests keep their objective, which ones do not is the router's choice. As in
size-interval task assignment (Harchol-Balter, Crovella and Murta 1999), the largest are kept away from the others.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from schedrl.baselines.routing.nominal_times import prefill_s_per_token
from schedrl.baselines.routing.router import PromptRouter, View, router_spec
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.errors import ConfigError
from schedrl.schedulers import SchedulerSpec

__all__ = ["SCHEDULERS", "Triage"]

_REMEMBERED, _FEWEST = 512, 20


class Triage(PromptRouter):
    """Sends the longest prompts to the slowest instance while all others are busy, and the rest where they are in time.

    A request is given up, and goes to the slowest instance, if no instance is predicted to be in time, or if all other
    instances keep it waiting and its prompt takes longer than most of those seen lately; but never more than ``share``.
    All others go to the instance, among those predicted to be in time, with the least sum of the seconds that computing
    the rest of the prompt takes there and ``patience`` times the wait; where none is in time, to that with the least
    predicted time to first token.

    Args:
        instance: what is served.
        rng: not used.
        share: most of the requests to give up; a little less than may be late.
        busy: share of the objective for the time to first token that a request waits on a busy instance. 0.2 does best
            among 0.05 to 0.4 on the first half of Mooncake's trace, on both fleets together.
        limit: share of that objective that a prediction in time may take up.
        patience: what a second of waiting counts against a second of computing, which others will wait for; any value
            from 0.15 to 0.6 does as well there.

    Raises:
        ConfigError: a share outside 0 to 1.
    """

    def __init__(
        self,
        instance: RoutingInstance,
        rng: np.random.Generator,
        *,
        share: float = 0.09,
        busy: float = 0.2,
        limit: float = 0.9,
        patience: float = 0.3,
    ) -> None:
        if not 0.0 <= share <= 1.0:
            raise ConfigError(f"share: {share!r}, expected 0 to 1")
        self._share = share
        self._busy_s, self._limit_s = busy * instance.ttft_slo_s, limit * instance.ttft_slo_s
        self._patience, self._token_s = patience, prefill_s_per_token(instance)
        self._ward = int(np.argmax(self._token_s))
        self._lately: deque[float] = deque(maxlen=_REMEMBERED)
        self._requests = self._given_up = 0

    def pick(self, view: View) -> int:
        """Return the instance for a request that has just arrived."""
        self._requests += 1
        own = (view.prompt_tokens - view.hit_tokens) * self._token_s
        waits = view.predicted_ttft_s - own + view.sent_tokens * self._token_s
        work = float(own[view.allowed].min())
        self._lately.append(work)
        others = view.allowed.copy()
        others[self._ward] = False
        timely = view.allowed & (waits + own <= self._limit_s)
        if not others.any():
            return view.least(waits + own)
        if view.allowed[self._ward] and self._given_up < self._share * self._requests:
            crowded_out = self._is_long(work) and float(waits[others].min()) > self._busy_s
            if crowded_out or not timely.any():
                self._given_up += not timely[self._ward]
                return self._ward
        if not timely.any():
            return view.least(waits + own, others)
        return view.least(own + self._patience * waits, timely)

    def _is_long(self, work: float) -> bool:
        """Return whether a prompt is among the longest of those seen lately, twice as many as may be given up."""
        longer = 1.0 - min(2.0 * self._share, 1.0)
        return len(self._lately) > _FEWEST and work > float(np.quantile(self._lately, longer))


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    router_spec(
        "triage",
        Triage,
        summary="the longest prompts to the slowest instance while others are busy, the rest where they are in time",
        source="own; Harchol-Balter, Crovella and Murta 1999 for the separation by size",
    ),
)
