"""Hexgen-Flow: stages of workflows go where they run fast and little waits, and queues go by urgency.

After Peng et al., "HEXGEN-FLOW: Optimizing LLM Inference Request Scheduling for Agentic Text-to-SQL" (arXiv
2505.05286).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from schedrl.arrays import F64
from schedrl.baselines.routing.nominal_times import decode_s_per_token, prefill_s_per_token
from schedrl.baselines.routing.router import RouterScheduler, View, play_router
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.solution import objectives
from schedrl.schedulers import SchedulerSpec

__all__ = ["ALPHA", "ALPHA_GRID", "SCHEDULERS", "HexgenFlow", "tune_alpha"]

ALPHA = 0.0
"""tuned on generated workflows, where 0 to 0.7 differ little: see ``schedrl.experiments.reproduce.hexgen_flow``"""
ALPHA_GRID = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

_SLO_S = 52.95
_FIRST_OUTPUT = 200.0
_FIRST_STAGES = 4.0


class HexgenFlow:
    """Scores instances by suitability and backlog, and ranks requests by how much of their time is left.

    The score is ``alpha * t_best / t_i - (1 - alpha) * W_i / W_mean``, with the time t_i that the stage takes at an
    instance and the time W_i of all that it was sent and has not finished. A stage's share of what is left until the
    program's deadline is as large as its share of the expected time of the stages to come; the request with the least
    time to spare goes first. Lengths of answers and numbers of stages are means over what is finished.

    Args:
        instance: The fleet.
        alpha: Weight of suitability, 0 to 1.
        slo_s: Deadline of programs without one; that of the paper's traces.
        urgency: Rank queues; else first come, first served.
        measured: Take backlogs and cached prefixes from the instances' signals instead of the router's own counts.
    """

    period_s = 0.0

    def __init__(
        self,
        instance: RoutingInstance,
        *,
        alpha: float = ALPHA,
        slo_s: float = _SLO_S,
        urgency: bool = True,
        measured: bool = False,
    ) -> None:
        self._alpha, self._slo_s, self._urgency, self._measured = alpha, slo_s, urgency, measured
        self._prefill, self._decode = prefill_s_per_token(instance), decode_s_per_token(instance)
        self._assigned_s = np.zeros(len(instance.fleet))  # (I,) of unfinished requests
        self._open: list[tuple[int, int, float]] = []
        self._outputs = _Mean(_FIRST_OUTPUT)
        self._stages = _Mean(_FIRST_STAGES)
        self._seen: dict[int, int] = {}
        self._start: dict[int, float] = {}
        self._ended: deque[int] = deque()

    def stage_s(self, view: View) -> F64:
        """Return the expected seconds (I,) of the request at hand at each instance, without waiting."""
        prompt = view.prompt_tokens - view.hit_tokens if self._measured else float(view.prompt_tokens)
        return np.asarray(prompt * self._prefill + self._outputs.value * self._decode)

    def choose(self, view: View) -> int:
        """Return the instance with the best score, and rank the request."""
        if view.handed_over:
            return view.least(view.outstanding)
        self._learn(view)
        seconds = self.stage_s(view)
        waiting = np.array(view.backlog_s) if self._measured else self._assigned_s
        mean = max(float(waiting[view.allowed].mean()), 1e-9)
        best = float(seconds[view.allowed].min())
        chosen = view.least(-(self._alpha * best / seconds - (1.0 - self._alpha) * waiting / mean))
        program = int(view.instance.program[view.request])
        self._start.setdefault(program, view.now_s)
        self._seen[program] = self._seen.get(program, 0) + 1
        if self._urgency:
            view.set_rank(view.now_s + self._slack_s(view, program, seconds, float(seconds[chosen])))
        self._assigned_s[chosen] += seconds[chosen]
        self._open.append((view.request, chosen, float(seconds[chosen])))
        return chosen

    def act(self, view: View) -> None:
        """Nothing: Hexgen-Flow acts on arrivals alone."""

    def _slack_s(self, view: View, program: int, seconds: F64, own_s: float) -> float:
        """Return the time that a stage can wait: its share of what is left for the program less its own time."""
        deadline = float(view.instance.deadline_s[program])
        whole = deadline if np.isfinite(deadline) else self._slo_s
        left = whole - (view.now_s - self._start[program])
        mean = float(seconds[view.allowed].mean())
        to_come = max(self._stages.value - self._seen[program], 0.0)
        return left * mean / (mean + to_come * mean) - own_s

    def _learn(self, view: View) -> None:
        """Take finished requests out of the backlogs, and learn lengths of answers from them."""
        still = []
        for request, i, seconds in self._open:
            if view.finish_s(request) < 0.0:
                still.append((request, i, seconds))
                continue
            self._assigned_s[i] -= seconds
            self._outputs.add(float(view.instance.output_tokens[request]))
            self._end(view, request)
        self._open = still

    def _end(self, view: View, request: int) -> None:
        """Learn the number of stages from programs that have been quiet long enough to be over."""
        program = int(view.instance.program[request])
        self._ended.append(program)
        if len(self._ended) > 64:
            self._stages.add(float(self._seen[self._ended.popleft()]))


class _Mean:
    """Mean of the last 500 values, starting from a guess."""

    def __init__(self, guess: float) -> None:
        self._values: deque[float] = deque(maxlen=500)
        self._sum = 0.0
        self.value = guess

    def add(self, value: float) -> None:
        if len(self._values) == self._values.maxlen:
            self._sum -= self._values[0]
        self._values.append(value)
        self._sum += value
        self.value = self._sum / len(self._values)


def tune_alpha(
    instances: Sequence[RoutingInstance], grid: Sequence[float] = ALPHA_GRID, *, measured: bool = False
) -> tuple[float, F64]:
    """Replay training workloads in the simulator with each weight of a grid.

    Args:
        instances: Workloads for tuning, of which none must be evaluated on.
        grid: Weights.
        measured: As in ``HexgenFlow``.

    Returns:
        The weight with the least mean penalty, the first of equal ones, and the mean penalties (G,).
    """
    found = np.zeros(len(grid))
    for instance in instances:
        for g, alpha in enumerate(grid):
            simulator = play_router(instance, HexgenFlow(instance, alpha=alpha, measured=measured))
            assert simulator is not None
            found[g] += objectives(instance, simulator.solution(0))["penalty"] / len(instances)
    return float(grid[int(found.argmin())]), found


_SOURCE = "Peng et al., HEXGEN-FLOW, arXiv 2505.05286"


def _spec(name: str, summary: str, measured: bool) -> SchedulerSpec:
    return SchedulerSpec(
        name=f"routing/{name}",
        make=lambda: RouterScheduler(lambda instance, _: HexgenFlow(instance, measured=measured)),
        information="online",
        summary=summary,
        source=_SOURCE,
    )


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    _spec("hexgen-flow", "suitability and assigned work of unlike devices, queues by urgency; knows speeds", False),
    _spec("hexgen-flow-speed", "the same with backlogs and cached prefixes as the instances report them", True),
)
