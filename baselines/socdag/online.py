"""Online rules: whenever tasks are ready, assign each at once, knowing only what has happened.

They run on the simulator's kernels in online mode, so they serve streams, noise and admission limits; device queues
and running tasks are estimated by expected durations. Every rule but ``etf-finish-hold`` assigns a task as soon
as it is ready. Where several pairs are equal, the oldest job's task of the largest upward rank on the lowest device
wins.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from schedrl.baselines.socdag.outcomes import outcome
from schedrl.envs.socdag.dynamics import advance
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.placement import ONLINE, place, row_of
from schedrl.envs.socdag.simulator import Simulator
from schedrl.envs.socdag.state import Options, State
from schedrl.kernels import inner_inlined, kernel
from schedrl.schedulers import Result, SchedulerSpec

__all__ = ["RULES", "SCHEDULERS", "OnlineRule"]

_MET, _EFT, _ETF_FINISH, _ETF_START, _OLB, _MAX_MIN, _SUFFERAGE, _HEFT_RT, _ETF_HOLD = range(9)
# More ready tasks than this at one moment are decided in instalments.
_WINDOW = 128


@inner_inlined
def _best_slot_of(state: State, b: int, first: int, stop: int, rule: int) -> int:
    """Return the device choice of a rule for the task whose candidates are ``first`` to ``stop``."""
    best, best_value, best_tie = first, np.inf, np.inf
    for c in range(first, stop):
        start, finish = state.candidate_start[b, c], state.candidate_finish[b, c]
        value, tie = finish, 0.0
        if rule == _MET:
            value, tie = finish - start, finish
        elif rule == _OLB:
            value = state.free[b, state.candidate_device[b, c]]
        elif rule == _ETF_START:
            value = start
        if value < best_value or (value == best_value and tie < best_tie):
            best, best_value, best_tie = c, value, tie
    return best


@inner_inlined
def _second_finish(state: State, b: int, first: int, stop: int, best: int) -> float:
    second = np.inf
    for c in range(first, stop):
        if c != best:
            second = min(second, state.candidate_finish[b, c])
    return second


@kernel
def _choose(state: State, b: int, rule: int) -> int:
    """Return the slot that a rule picks among all pairs on offer."""
    best, best_value = -1, -np.inf
    c, pairs = 0, state.candidates[b]
    if state.candidate_task[b, pairs - 1] < 0:
        pairs -= 1
    while c < pairs:
        task = state.candidate_task[b, c]
        stop = c
        while stop < pairs and state.candidate_task[b, stop] == task:
            stop += 1
        slot = _best_slot_of(state, b, c, stop, rule)
        finish = state.candidate_finish[b, slot]
        if rule == _ETF_FINISH:
            value = -finish
        elif rule == _ETF_HOLD:
            # A task whose best device is busy is left for later, unless nothing is going to happen.
            held = finish > state.best_finish[b, slot] and pairs < state.candidates[b]
            value = -np.inf if held else -finish
        elif rule == _ETF_START:
            value = -state.candidate_start[b, slot]
        elif rule == _MAX_MIN:
            value = finish
        elif rule == _SUFFERAGE:
            value = _second_finish(state, b, c, stop, slot) - finish
        elif rule == _HEFT_RT:
            value = state.mean_duration[b, row_of(state, b, task)]
        else:
            value = -float(c)
        if value > best_value:
            best, best_value = slot, value
        c = stop
    return best if best >= 0 else pairs


@kernel
def _run(state: State, b: int, rule: int, options: Options) -> int:
    """Play a loaded row to its end and return the number of decisions."""
    decisions = 0
    while state.candidates[b] > 0:
        slot = _choose(state, b, rule)
        if state.candidate_task[b, slot] < 0:
            state.waiting[b] = True
        else:
            place(state, b, slot, ONLINE)
        advance(state, b, options, 0)
        decisions += 1
    return decisions


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineRule:
    """One of ``RULES`` as a scheduler."""

    rule: int

    def schedule(self, instance: SocDagInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the executed schedule."""
        _compile(self.rule)
        started = time.perf_counter()
        simulator, options = _prepare(instance, self.rule)
        decisions = _run(simulator.state, 0, self.rule, options)
        return outcome(instance, simulator.solution(0), started=started, decisions=decisions)


def _prepare(instance: SocDagInstance, rule: int) -> tuple[Simulator, Options]:
    hold = rule == _ETF_HOLD
    window = min(_WINDOW, instance.tasks)
    simulator = Simulator(
        [instance], 1, window=window, wait=hold, skip_forced=False, dispatch="idle" if hold else "queue"
    )
    return simulator, simulator.options


@functools.cache
def _compile(rule: int) -> None:
    """Compile the kernels on first use, so that a time limit measures the rule alone."""
    from schedrl.envs.socdag.structured import canonical

    simulator, options = _prepare(canonical(), rule)
    _run(simulator.state, 0, rule, options)


RULES: dict[str, tuple[int, str, str]] = {
    "met-online": (
        _MET,
        "each ready task on its fastest device type (minimum execution time)",
        "Armstrong, Hensgen and Kidd 1998; the DS3 simulator's MET",
    ),
    "eft-online": (
        _EFT,
        "each ready task, oldest job first, where it is expected to end first (minimum completion time)",
        "Armstrong, Hensgen and Kidd 1998; the DS3 simulator's EFT",
    ),
    "etf-finish-online": (
        _ETF_FINISH,
        "of all ready tasks and devices the pair that ends first (the DS3 simulator's ETF, Min-Min on the ready list)",
        "Arda et al., IEEE TC 2020",
    ),
    "etf-finish-hold": (
        _ETF_HOLD,
        "ETF by finish that commits a task only when its best device is idle, so that others may overtake",
        "our late-binding form of the DS3 simulator's ETF",
    ),
    "etf-start-online": (
        _ETF_START,
        "of all ready tasks and devices the pair that starts first (earliest task first)",
        "Hwang, Chow, Anger and Lee 1989",
    ),
    "olb-online": (
        _OLB,
        "each ready task on the device that is free first (opportunistic load balancing)",
        "Armstrong, Hensgen and Kidd 1998",
    ),
    "max-min-online": (
        _MAX_MIN,
        "of the ready tasks the one whose earliest end is latest, where it ends first",
        "Ibarra and Kim 1977",
    ),
    "sufferage-online": (
        _SUFFERAGE,
        "of the ready tasks the one that loses most on its second-best device, where it ends first",
        "Maheswaran et al. 1999",
    ),
    "heft-rt": (
        _HEFT_RT,
        "ready tasks by mean duration, longest first, where they end first (HEFT on the ready queue)",
        "HEFT_RT of DeepSoCS and SoCRATES; Mack et al., arXiv 2207.11360",
    ),
}


def _make(rule: int) -> Callable[[], Any]:
    # Untyped on purpose: a rule takes DAG instances only, the contract any; a spec meets its own family's.
    return functools.partial(OnlineRule, rule=rule)


SCHEDULERS: tuple[SchedulerSpec, ...] = tuple(
    SchedulerSpec(
        name=f"socdag/{name}",
        make=_make(rule),
        information="online",
        summary=summary,
        source=source,
    )
    for name, (rule, summary, source) in RULES.items()
)
