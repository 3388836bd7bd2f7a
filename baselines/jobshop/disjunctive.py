"""A complete selection of the disjunctive graph: machine sequences with heads, tails and a topological order.

Roy and Sussmann (1964) model; heads and tails as in Carlier (1982). Moves keep the order topological by
repairing only the window they disturb (after Pearce and Kelly 2006), which also detects cycles exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from schedrl.arrays import I32, I64, Bool
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.solution import Schedule
from schedrl.kernel_arguments import by_reference
from schedrl.kernels import inner, kernel

__all__ = ["Selection", "load_sequence", "makespan_of", "move_after", "move_before", "new_selection", "sequence_of"]


@by_reference
class Selection(NamedTuple):
    """Machine sequences of one instance; -1 stands for no operation."""

    job_before: I64  # (N,) preceding operation of the job
    job_after: I64  # (N,) following operation of the job
    job_last: I32  # (J,) last operation of each job
    duration: I64  # (N,)
    machine: I32  # (N,)
    first: I32  # (M + 1,) where each machine's operations begin in ``sequence``
    sequence: I32  # (N,) operations machine after machine, in processing order
    machine_before: I64  # (N,) preceding operation of the machine
    machine_after: I64  # (N,) following operation of the machine
    place: I32  # (N,) index of each operation in ``sequence``
    order: I32  # (N,) operations in a topological order
    rank: I32  # (N,) index of each operation in ``order``
    head: I64  # (N,) earliest start
    tail: I64  # (N,) longest work after the operation's end
    marked: Bool  # (N,) scratch, all False between calls
    buffer: I32  # (N,) scratch


def new_selection(instance: JobShopInstance) -> Selection:
    """Return the memory for an instance; ``load_sequence`` must fill it before use."""
    count = instance.operations
    before = np.arange(-1, count - 1, dtype=np.int64)
    before[instance.job_offset[:-1]] = -1
    after = np.arange(1, count + 1, dtype=np.int64)
    after[instance.job_offset[1:] - 1] = -1
    loads = np.bincount(instance.machine, minlength=instance.machines)

    def i32() -> I32:
        return np.zeros(count, dtype=np.int32)

    return Selection(
        job_before=before,
        job_after=after,
        job_last=(instance.job_offset[1:] - 1).astype(np.int32),
        duration=instance.duration.copy(),
        machine=instance.machine.copy(),
        first=np.concatenate([[0], np.cumsum(loads)]).astype(np.int32),
        sequence=i32(),
        machine_before=np.full(count, -1, dtype=np.int64),
        machine_after=np.full(count, -1, dtype=np.int64),
        place=i32(),
        order=i32(),
        rank=i32(),
        head=np.zeros(count, dtype=np.int64),
        tail=np.zeros(count, dtype=np.int64),
        marked=np.zeros(count, dtype=np.bool_),
        buffer=i32(),
    )


def sequence_of(instance: JobShopInstance, schedule: Schedule) -> I32:
    """Return (N,) the operations machine after machine in the order in which a feasible schedule runs them."""
    start = schedule.start_time
    # A zero duration precedes what starts with it; operations of one job keep their order.
    order = np.lexsort((np.arange(instance.operations), start + instance.duration, start, instance.machine))
    return order.astype(np.int32)


@kernel
def _link(g: Selection, machine: int, low: int, high: int) -> None:
    """Restore place and machine neighbours of ``sequence[low..high]``, all on one machine, and around it."""
    before = g.sequence[low - 1] if low > g.first[machine] else -1
    for place in range(low, high + 1):
        operation = g.sequence[place]
        g.place[operation] = place
        g.machine_before[operation] = before
        if before >= 0:
            g.machine_after[before] = operation
        before = operation
    after = g.sequence[high + 1] if high + 1 < g.first[machine + 1] else -1
    g.machine_after[before] = after
    if after >= 0:
        g.machine_before[after] = before


@kernel
def load_sequence(g: Selection, sequence: I32) -> int:
    """Set all machine sequences and return the makespan, or -1 when they contain a cycle."""
    count = len(sequence)
    for place in range(count):
        g.sequence[place] = sequence[place]
    for machine in range(len(g.first) - 1):
        if g.first[machine] < g.first[machine + 1]:
            _link(g, machine, g.first[machine], g.first[machine + 1] - 1)
    waiting = g.rank  # number of predecessors that are not in the order yet, until ranks are known
    done = 0
    for operation in range(count):
        waiting[operation] = (g.job_before[operation] >= 0) + (g.machine_before[operation] >= 0)
        if waiting[operation] == 0:
            g.order[done] = operation
            done += 1
    read = 0
    while read < done:
        operation = g.order[read]
        read += 1
        for successor in (g.job_after[operation], g.machine_after[operation]):
            if successor >= 0:
                waiting[successor] -= 1
                if waiting[successor] == 0:
                    g.order[done] = successor
                    done += 1
    if done < count:
        return -1
    for index in range(count):
        g.rank[g.order[index]] = index
    _update_heads(g, 0)
    _update_tails(g, count - 1)
    return makespan_of(g)


@kernel
def makespan_of(g: Selection) -> int:
    """Return the latest end."""
    makespan = 0
    for operation in g.job_last:
        makespan = max(makespan, g.head[operation] + g.duration[operation])
    return makespan


@inner
def _update_heads(g: Selection, from_rank: int) -> None:
    for index in range(from_rank, len(g.order)):
        operation = g.order[index]
        head = 0
        job, machine = g.job_before[operation], g.machine_before[operation]
        if job >= 0:
            head = g.head[job] + g.duration[job]
        if machine >= 0:
            head = max(head, g.head[machine] + g.duration[machine])
        g.head[operation] = head


@inner
def _update_tails(g: Selection, from_rank: int) -> None:
    for index in range(from_rank, -1, -1):
        operation = g.order[index]
        tail = 0
        job, machine = g.job_after[operation], g.machine_after[operation]
        if job >= 0:
            tail = g.tail[job] + g.duration[job]
        if machine >= 0:
            tail = max(tail, g.tail[machine] + g.duration[machine])
        g.tail[operation] = tail


@inner
def _write_window(g: Selection, low: int, high: int, marked_first: bool) -> None:
    """Split ranks low..high into marked and unmarked operations, each in their old order; unmark all."""
    write = 0
    for wanted in (marked_first, not marked_first):
        for index in range(low, high + 1):
            if g.marked[g.order[index]] == wanted:
                g.buffer[write] = g.order[index]
                write += 1
    for index in range(write):
        operation = g.buffer[index]
        g.order[low + index] = operation
        g.rank[operation] = low + index
        g.marked[operation] = False


@kernel
def move_after(g: Selection, early: int, late: int) -> bool:
    """Move ``early`` right behind ``late``, later on the same machine; return False, unchanged, on a cycle."""
    low, high = g.rank[early], g.rank[late]
    g.marked[early] = True
    for index in range(low + 1, high + 1):
        operation = g.order[index]
        job, machine = g.job_before[operation], g.machine_before[operation]
        # The arc from ``early`` to its old machine successor goes away with the move.
        g.marked[operation] = (job >= 0 and g.marked[job]) or (machine >= 0 and machine != early and g.marked[machine])
    if g.marked[late]:
        for index in range(low, high + 1):
            g.marked[g.order[index]] = False
        return False
    _write_window(g, low, high, False)
    target = g.place[late]
    for place in range(g.place[early], target):
        g.sequence[place] = g.sequence[place + 1]
    g.sequence[target] = early
    _link(g, g.machine[early], g.place[early], target)
    _update_heads(g, low)
    _update_tails(g, high)
    return True


@kernel
def move_before(g: Selection, late: int, early: int) -> bool:
    """Move ``late`` right before ``early``, earlier on the same machine; return False, unchanged, on a cycle."""
    low, high = g.rank[early], g.rank[late]
    g.marked[late] = True
    for index in range(high - 1, low - 1, -1):
        operation = g.order[index]
        job, machine = g.job_after[operation], g.machine_after[operation]
        g.marked[operation] = (job >= 0 and g.marked[job]) or (machine >= 0 and machine != late and g.marked[machine])
    if g.marked[early]:
        for index in range(low, high + 1):
            g.marked[g.order[index]] = False
        return False
    _write_window(g, low, high, True)
    target = g.place[early]
    for place in range(g.place[late], target, -1):
        g.sequence[place] = g.sequence[place - 1]
    g.sequence[target] = late
    _link(g, g.machine[late], target, g.place[late])
    _update_heads(g, low)
    _update_tails(g, high)
    return True
