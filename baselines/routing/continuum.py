"""Continuum: programs keep their place while their tools run, and queues go by when a program began.

After "Continuum: Efficient and Robust Multi-Turn LLM Agent Scheduling with KV Cache Time-to-Live" (2025). The engines
here have no pins: what a time to live decides is where the program goes on, not what may leave an engine's memory. That
follows from least recent use as in vLLM.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from schedrl.arrays import F64
from schedrl.baselines.routing.nominal_times import prefill_s_per_token
from schedrl.baselines.routing.router import RouterScheduler, View
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.schedulers import SchedulerSpec

__all__ = ["SCHEDULERS", "Continuum", "ToolDurations", "time_to_live"]

_ENOUGH = 100
_KEPT = 500


class ToolDurations:
    """Observed durations of tools: those of one tool once there are more than 100, else those of all.

    Args:
        enough: how many durations a distribution needs more than.
    """

    def __init__(self, enough: int = _ENOUGH) -> None:
        self._enough = enough
        self._all: deque[float] = deque(maxlen=_KEPT)
        self._of: dict[int, deque[float]] = {}

    def add(self, tool: int, seconds: float) -> None:
        """Count a duration."""
        self._all.append(seconds)
        self._of.setdefault(tool, deque(maxlen=_KEPT)).append(seconds)

    def of(self, tool: int) -> F64 | None:
        """Return the durations (S,) to go by, in ascending order; None if too few are known."""
        for found in (self._of.get(tool, ()), self._all):
            if len(found) > self._enough:
                return np.sort(np.array(found, dtype=np.float64))
        return None


def time_to_live(durations: F64 | None, benefit_s: float) -> float:
    """Return for how long a prefix is worth keeping, in seconds.

    The share of tools that are back by then times what that saves, less the time itself, is largest at 0 or at an
    observed duration. Without observations durations count as exponential with mean 1 s, for which it is the
    logarithm of the benefit.

    Args:
        durations: (S,) ascending, or None.
        benefit_s: what it saves if the program comes back in time.
    """
    if durations is None:
        return math.log(benefit_s) if benefit_s > 1.0 else 0.0
    gain = np.arange(1, len(durations) + 1) / len(durations) * benefit_s - durations
    best = int(gain.argmax())
    return float(durations[best]) if gain[best] > 0.0 else 0.0


@dataclass(slots=True)
class _Program:
    began_s: float
    steps: int = 0
    where: int = -1
    latest: int = -1
    lives_s: float = 0.0


class Continuum:
    """Sends a program back to its instance within its time to live, else to the one with the least waiting.

    The time to live counts from the end of a request. What it saves is the time to compute the program's context again
    and, as programs with many steps behind them have few to come, the mean queueing delay times minus the correlation
    of both numbers.

    Args:
        instance: The fleet.
        lives: ``learned`` as above, a fixed number of seconds, or 0 for first come, first served by program alone.
        by_program: Rank queues by when a program began; else by arrival.
        speed_aware: Take each instance's own speed and predicted times; else the fleet's mean and pending tokens.
    """

    period_s = 0.0

    def __init__(
        self,
        instance: RoutingInstance,
        *,
        lives: float | None = None,
        by_program: bool = True,
        speed_aware: bool = False,
    ) -> None:
        own = prefill_s_per_token(instance)
        self._seconds: F64 = own if speed_aware else np.full(len(own), own.mean())
        self._lives, self._by_program, self._speed_aware = lives, by_program, speed_aware
        self._tools = ToolDurations()
        self._programs: dict[int, _Program] = {}
        self._delays: deque[float] = deque(maxlen=_KEPT)
        self._eta, self._counted = 0.0, 0

    def choose(self, view: View) -> int:
        """Return the program's instance while it lives there, else the one with the least waiting."""
        if view.handed_over:
            return view.least(view.outstanding)
        number = int(view.instance.program[view.request])
        program = self._programs.get(number)
        if program is None:
            program = self._programs[number] = _Program(view.now_s)
        if program.latest >= 0 and view.finish_s(program.latest) >= 0.0:
            pause = max(view.now_s - view.finish_s(program.latest), 0.0)
            self._tools.add(int(view.instance.tool[view.request]), pause)
            stays = pause <= self._life_s(view, program)
        else:
            # A branch beside one that is under way: its prefix is in use.
            stays = program.latest >= 0 and self._life_s(view, program) > 0.0
        if stays and view.allowed[program.where]:
            chosen = program.where
        else:
            chosen = view.least(view.predicted_ttft_s if self._speed_aware else view.pending_tokens + view.sent_tokens)
        self._send(view, program, chosen)
        return chosen

    def act(self, view: View) -> None:
        """Nothing: times to live are looked at when a program comes back."""

    def _send(self, view: View, program: _Program, chosen: int) -> None:
        if self._by_program:
            view.set_rank(program.began_s)
        program.steps += 1
        program.where, program.latest = chosen, view.request
        self._delays.append(self._waiting_s(view, chosen))
        self._count_lengths(view)

    def _waiting_s(self, view: View, i: int) -> float:
        if self._speed_aware:
            return float(view.backlog_s[i])
        return float((view.pending_tokens[i] + view.sent_tokens[i]) * self._seconds[i])

    def _life_s(self, view: View, program: _Program) -> float:
        """Return the time to live of a program's prefix at its instance."""
        if self._lives is not None:
            return self._lives
        instance, latest = view.instance, program.latest
        context = int(instance.prompt_tokens[latest]) + int(instance.output_tokens[latest])
        reload_s = context * float(self._seconds[program.where])
        delay_s = float(np.mean(self._delays)) if self._delays else 0.0
        # The tool is known from the answer that has just ended.
        tool = int(instance.tool[view.request])
        return time_to_live(self._tools.of(tool), delay_s * self._eta + reload_s)

    def _count_lengths(self, view: View) -> None:
        """Learn how the steps behind a program tell of those to come, from the programs known so far."""
        self._counted += 1
        if self._counted % 64:
            return
        lengths = [p.steps for p in self._programs.values() if p.latest >= 0 and view.finish_s(p.latest) >= 0.0]
        done = np.array([k for steps in lengths[-_KEPT:] for k in range(1, steps + 1)], dtype=np.float64)
        left = np.array([steps - k for steps in lengths[-_KEPT:] for k in range(1, steps + 1)], dtype=np.float64)
        if len(done) > 1 and done.std() > 0.0 and left.std() > 0.0:
            self._eta = max(-float(np.corrcoef(done, left)[0, 1]), 0.0)


_SOURCE = (
    "Li et al., Continuum, 2025: time to live by tool, first come first served by program; without pins in engines"
)


def _spec(name: str, summary: str, *, lives: float | None = None, speed_aware: bool = False) -> SchedulerSpec:
    return SchedulerSpec(
        name=f"routing/{name}",
        make=lambda: RouterScheduler(lambda instance, _: Continuum(instance, lives=lives, speed_aware=speed_aware)),
        information="online",
        summary=summary,
        source=_SOURCE,
    )


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    _spec("continuum", "programs go on where they were within a learned time to live; oldest program first"),
    _spec("continuum-speed", "the same with each instance's own speed and predicted times", speed_aware=True),
    _spec("program-fcfs", "least pending tokens; queues by when a program began", lives=0.0),
)
