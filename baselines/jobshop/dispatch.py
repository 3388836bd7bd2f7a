"""Schedule generation by a priority per operation, on the simulator's kernels."""

from __future__ import annotations

from schedrl.arrays import F64
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.simulator import (
    GIFFLER_THOMPSON,
    Generation,
    Simulator,
    dispatch,
    find_candidates,
    reset_row,
)
from schedrl.envs.jobshop.solution import Schedule
from schedrl.envs.jobshop.state import State
from schedrl.kernels import kernel

__all__ = ["Dispatcher", "complete"]


@kernel
def complete(state: State, b: int, key: F64, by_arrival: bool, delay: float) -> int:
    """Dispatch everything that is left in row ``b``, smallest priority first, and return the makespan.

    The priority of an operation is ``key``, times the arrival of its job when ``by_arrival``. Ties go to the
    lowest job. ``delay`` 0 generates a non-delay schedule, 1 an active one.
    """
    find_candidates(state, b, GIFFLER_THOMPSON, delay)
    while state.candidates[b] > 0:
        best_slot, best = 0, 0.0
        for slot in range(state.candidates[b]):
            job = state.candidate_job[b, slot]
            priority = key[state.next_operation[b, job]]
            if by_arrival:
                priority *= state.job_ready[b, job]
            if slot == 0 or priority < best:
                best_slot, best = slot, priority
        dispatch(state, b, best_slot, GIFFLER_THOMPSON)
        find_candidates(state, b, GIFFLER_THOMPSON, delay)
    makespan = 0
    for machine in range(state.machines[b]):
        makespan = max(makespan, state.machine_free[b, machine])
    return makespan


class Dispatcher:
    """One instance and the memory to dispatch it many times.

    Args:
        instance: the job shop.
        generation: ``non-delay`` (no machine idles while an operation could start on it) or ``active``
            (Giffler and Thompson 1960).
    """

    def __init__(self, instance: JobShopInstance, generation: Generation = "non-delay") -> None:
        self._simulator = Simulator([instance], 1, generation=generation, skip_forced=False)
        self._delay = 0.0 if generation == "non-delay" else 1.0

    def run(self, key: F64, *, by_arrival: bool = False) -> int:
        """Dispatch from the start by ``key`` (N,), smallest first, and return the makespan."""
        reset_row(self._simulator.state, 0, GIFFLER_THOMPSON, self._delay, False)
        makespan: int = complete(self._simulator.state, 0, key, by_arrival, self._delay)
        return makespan

    def schedule(self) -> Schedule:
        """Return the schedule of the last run."""
        return self._simulator.solution(0)
