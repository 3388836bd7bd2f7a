"""Lower bounds on the objective of a shop of any variant, in hindsight: from what durations turn out to be.

All ignore outages and blocking, which only delay. Where an operation has a choice its least duration counts.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numba import njit

from schedrl.arrays import F64, I64, Bool
from schedrl.envs.jobshop.shop import NO_DUE_DATE, ShopInstance
from schedrl.families import Bound

__all__ = ["earliest_times", "shop_bounds"]

# The assignment of jobs to ranks takes cubic time: about a tenth of a second for this many jobs on a machine.
_MOST_ASSIGNED = 500
# Sets of machines are compared with all others, in quadratic time; the busiest matter most.
_MOST_SETS = 1000


def shop_bounds(instance: ShopInstance) -> list[Bound]:
    """Return lower bounds on ``instance.objective``.

    If that is the makespan they are the longest job, the load of machines, and the preemptive schedule of one machine
    where some operation has no choice. If it is tardiness, flow time or both, they are the jobs' earliest completions
    and the preemptive schedules of one machine and of the shop as one machine. Otherwise it is one bound, the sum of
    the largest of either kind.
    """
    makespan, *dates = instance.objective_weights
    if not any(dates):
        return [
            Bound(name=bound.name, value=makespan * bound.value, why=bound.why) for bound in _makespan_bounds(instance)
        ]
    on_dates = _date_bounds(instance)
    if not makespan:
        return on_dates
    end = max(_makespan_bounds(instance), key=lambda bound: bound.value)
    late = max(on_dates, key=lambda bound: bound.value)
    why = f"makespan by {end.name}: {end.why}; tardiness and flow time by {late.name}: {late.why}"
    return [Bound(name="weighted-sum", value=makespan * end.value + late.value, why=why)]


def earliest_times(instance: ShopInstance) -> tuple[I64, I64, I64]:
    """Return (N,) earliest start, (N,) least duration and (N,) least work that follows, of each operation."""
    least = np.minimum.reduceat(instance.actual_duration, instance.mode_offset[:-1])
    before = np.concatenate([[0], np.cumsum(least)])
    first, last = instance.job_offset[instance.job], instance.job_offset[instance.job + 1]
    head = instance.release[instance.job] + before[:-1] - before[first]
    return head, least, before[last] - before[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Visits:
    """What jobs have to do on one machine, between their first and last operation without a choice there."""

    job: I64  # (V,)
    head: I64  # (V,) earliest start
    work: I64  # (V,)
    tail: I64  # (V,) least work after it


def _makespan_bounds(instance: ShopInstance) -> list[Bound]:
    head, least, tail = earliest_times(instance)
    longest = int((head + least + tail).argmax())
    bounds = [
        Bound(
            name="longest-job",
            value=float(head[longest] + least[longest] + tail[longest]),
            why=f"job {instance.job[longest]} alone, from its release, ends then",
        ),
        _load_bound(instance, head, least, tail),
    ]
    machine = _only_machine(instance)
    ends = {
        m: _jackson(head[here], least[here], tail[here])
        for m in range(instance.machines)
        if len(here := np.flatnonzero(machine == m))
    }
    if ends:
        hardest = max(ends, key=lambda m: ends[m])
        bounds.append(
            Bound(
                name="one-machine-preemptive",
                value=ends[hardest],
                why=f"optimal preemptive schedule of machine {hardest} with heads and tails, by Jackson's rule "
                "(Carlier, EJOR 11 (1982) 42-47)",
            )
        )
    return bounds


def _load_bound(instance: ShopInstance, head: I64, least: I64, tail: I64) -> Bound:
    """Return the largest load of a set of machines: of one that is all the choice some operation has, or of all."""
    eligible = np.zeros((instance.operations, instance.machines), dtype=np.bool_)
    eligible[instance.mode_operation, instance.machine] = True
    used = np.bincount(instance.machine, minlength=instance.machines) > 0
    sets, of_operation = np.unique(np.concatenate([eligible, used[None]]), axis=0, return_inverse=True)
    of_operation = of_operation.reshape(-1)
    bits = np.packbits(sets, axis=1)
    own_work = np.bincount(of_operation[:-1], weights=least, minlength=len(sets))
    # The last is the set of all, which some operation may have too.
    own_work[of_operation[-1]] = np.inf
    best, chosen = -1, used
    for k in np.argsort(-own_work, kind="stable")[:_MOST_SETS].tolist():
        machines = sets[k]
        within = ~(bits & ~bits[k]).any(axis=1)[of_operation[:-1]]
        work = -(-int(least[within].sum()) // int(machines.sum()))
        if machines.sum() == 1:
            work += _setup_time(instance, int(machines.argmax()), eligible, within)
        load = int(head[within].min()) + work + int(tail[within].min())
        if load > best:
            best, chosen = load, machines
    return Bound(
        name="machine-load",
        value=float(best),
        why=f"shortest head, least work and setups, shortest tail of what only {_listed(chosen)} can do, shared "
        "evenly (Taillard 1993 for one machine)",
    )


def _listed(machines: Bool) -> str:
    indices = np.flatnonzero(machines).tolist()
    shown = ", ".join(map(str, indices[:8])) + (f" and {len(indices) - 8} more" if len(indices) > 8 else "")
    return f"machine{'s' if len(indices) > 1 else ''} {shown}"


def _setup_time(instance: ShopInstance, machine: int, eligible: Bool, within: Bool) -> int:
    """Return the least time that a machine is set up for the operations ``within``: all but one follow another."""
    families = np.unique(instance.setup_family[eligible[:, machine]])
    setup = instance.setup[machine][np.ix_(families, instance.setup_family[within])].min(axis=0)
    return int(setup.sum() - setup.max())


def _date_bounds(instance: ShopInstance) -> list[Bound]:
    """Return bounds on tardiness and flow time, with their weights."""
    head, least, tail = earliest_times(instance)
    alone = (head + least + tail)[instance.job_offset[:-1]]
    work = np.add.reduceat(least, instance.job_offset[:-1])
    jobs = np.arange(instance.jobs)
    own = _date_cost(instance, jobs, alone)
    bounds = [Bound(name="job-dates", value=float(own.sum()), why="every job alone, from its release")]
    machine = _only_machine(instance)
    on_machines = {
        m: _ranked_cost(instance, visits, _completions(visits.head, visits.work, 1), own)
        for m in range(instance.machines)
        if len((visits := _visits(instance, machine == m, head, least, tail)).job)
    }
    if on_machines:
        hardest = max(on_machines, key=lambda m: on_machines[m])
        bounds.append(
            Bound(
                name="one-machine-srpt",
                value=on_machines[hardest],
                why=f"machine {hardest} alone: its k-th job ends no earlier than under shortest remaining time first "
                "(Schrage, Operations Research 16 (1968) 687-690; Chu, Naval Research Logistics 39 (1992) 265-283), "
                "and jobs are assigned to ranks at least cost",
            )
        )
    used = len(np.unique(instance.machine))
    if (int(instance.release.max()) + int(work.sum())) * used > np.iinfo(np.int64).max:
        return bounds
    whole = _Visits(job=jobs, head=instance.release, work=work, tail=np.zeros_like(work))
    bounds.append(
        Bound(
            name="one-fast-machine-srpt",
            value=_ranked_cost(instance, whole, _completions(whole.head, whole.work, used), own),
            why=f"the {used} machines as one that is {used} times as fast, by shortest remaining time first and least "
            "cost of ranks",
        )
    )
    return bounds


def _date_cost(instance: ShopInstance, job: I64, completion: I64 | F64) -> F64:
    """Return what completions of jobs (..., V) add to the objective through tardiness and flow time."""
    _, tardiness, flow = instance.objective_weights
    due = instance.due[job]
    late = np.where(due < NO_DUE_DATE, np.maximum(completion - due, 0), 0)
    cost: F64 = instance.weight[job] * (tardiness * late + flow * (completion - instance.release[job]))
    return cost


def _ranked_cost(instance: ShopInstance, visits: _Visits, completion: F64, own: F64) -> float:
    """Return the least cost of jobs that end as k-th no earlier than ``completion[k]``, the others at their own cost.

    Args:
        instance: Whose jobs they are.
        visits: The jobs, and what they have to do.
        completion: (V,) earliest k-th completion of all their work, ascending.
        own: (J,) cost of each job at its earliest completion.
    """
    if len(visits.job) > _MOST_ASSIGNED:
        return float(own.sum() - own[visits.job].sum()) + _sorted_cost(instance, visits, completion)
    # scipy takes a while to import, and most instances are about the makespan.
    from scipy.optimize import linear_sum_assignment

    alone = visits.head + visits.work + visits.tail
    ranked = np.maximum(completion[:, None] + visits.tail, alone)
    cost = np.maximum(_date_cost(instance, visits.job, ranked), own[visits.job])
    rest = own.sum() - own[visits.job].sum()
    return float(rest + cost[linear_sum_assignment(cost)].sum())


def _sorted_cost(instance: ShopInstance, visits: _Visits, completion: F64) -> float:
    """Return a weaker bound than ``_ranked_cost`` that takes no matrix.

    Tardiness counts with the least weight, for which ranks in order of due dates are best, and flow time has its least
    sum with ranks in order of weights.
    """
    _, tardiness, flow = instance.objective_weights
    weight, release = instance.weight[visits.job], instance.release[visits.job]
    late = np.maximum(completion - np.sort(instance.due[visits.job] - visits.tail), 0.0).sum()
    total = np.sort(weight)[::-1] @ completion + weight @ (visits.tail - release)
    return float(tardiness * weight.min() * late + flow * total)


def _only_machine(instance: ShopInstance) -> I64:
    """Return (N,) machine of operations that have no choice of it, -1 for the others."""
    lowest = np.minimum.reduceat(instance.machine, instance.mode_offset[:-1])
    highest = np.maximum.reduceat(instance.machine, instance.mode_offset[:-1])
    return np.where(lowest == highest, lowest, -1).astype(np.int64)


def _visits(instance: ShopInstance, here: Bool, head: I64, least: I64, tail: I64) -> _Visits:
    """Return the work of each job on the machine of the operations ``here``."""
    operations = np.flatnonzero(here)
    job, first, count = np.unique(instance.job[operations], return_index=True, return_counts=True)
    work = np.add.reduceat(least[operations], first) if len(first) else np.zeros(0, dtype=np.int64)
    return _Visits(
        job=job.astype(np.int64), head=head[operations[first]], work=work, tail=tail[operations[first + count - 1]]
    )


def _jackson(head: I64, work: I64, tail: I64) -> float:
    """Return the largest completion plus tail in the preemptive schedule that runs the longest tail first."""
    order = np.argsort(head, kind="stable")
    completion = _preemptive_completions(head[order], work[order], -tail[order], False)
    return float((completion + tail[order]).max())


def _completions(head: I64, work: I64, speed: int) -> F64:
    """Return ascending completions under shortest remaining time first, on a machine that is ``speed`` times as fast.

    No schedule has completed more of the work at any time.
    """
    order = np.argsort(head, kind="stable")
    completion = _preemptive_completions(head[order] * speed, work[order], work[order], True)
    return np.sort(completion) / speed


@njit(cache=True)
def _preemptive_completions(head: I64, work: I64, priority: I64, remaining_first: bool) -> I64:
    """Return completions on one machine that always runs the available operation of least priority value.

    Args:
        head: (V,) when each becomes available, ascending.
        work: (V,) how long it runs.
        priority: (V,) the least runs first.
        remaining_first: Whether priorities fall with the work done, as those of remaining work do.
    """
    remaining = work.copy()
    completion = np.zeros(len(head), dtype=np.int64)
    available = [(priority[0], 0)]
    coming, now = 1, head[0]
    while available or coming < len(head):
        if not available:
            now = max(now, head[coming])
        while coming < len(head) and head[coming] <= now:
            heapq.heappush(available, (priority[coming], coming))
            coming += 1
        value, running = heapq.heappop(available)
        step = remaining[running]
        if coming < len(head):
            step = min(step, head[coming] - now)
        now += step
        remaining[running] -= step
        if remaining[running] == 0:
            completion[running] = now
        else:
            heapq.heappush(available, (value - step if remaining_first else value, running))
    return completion
