"""The shifting bottleneck procedure: machines are sequenced one by one, the most critical first.

Adams, Balas and Zawack (1988) with their reoptimisation cycles; one-machine problems keep the delays that sequenced
machines put between operations (Balas, Lenstra and Vazacopoulos 1995), so no sequence ever closes a cycle.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from schedrl.arrays import I32, I64
from schedrl.baselines.jobshop.carlier import new_one_machine, solve_one_machine
from schedrl.baselines.jobshop.outcomes import outcome
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.solution import Schedule
from schedrl.errors import ConfigError
from schedrl.kernel_arguments import by_reference
from schedrl.kernels import kernel
from schedrl.schedulers import Result, SchedulerSpec

__all__ = ["SCHEDULERS", "ShiftingBottleneck"]


@by_reference
class _Graph(NamedTuple):
    """The disjunctive graph with some machines sequenced; -1 stands for no operation."""

    job_before: I64  # (N,)
    job_after: I64  # (N,)
    machine_before: I64  # (N,)
    machine_after: I64  # (N,)
    duration: I64  # (N,)
    order: I32  # (N,) operations in a topological order
    rank: I32  # (N,) index of each operation in ``order``
    head: I64  # (N,) earliest start
    tail: I64  # (N,) longest work after the end
    path: I64  # (N,) scratch: longest path from one operation, -1 for none


def _new_graph(instance: JobShopInstance) -> _Graph:
    count = instance.operations
    before = np.arange(-1, count - 1, dtype=np.int64)
    before[instance.job_offset[:-1]] = -1
    after = np.arange(1, count + 1, dtype=np.int64)
    after[instance.job_offset[1:] - 1] = -1
    return _Graph(
        job_before=before,
        job_after=after,
        machine_before=np.full(count, -1, dtype=np.int64),
        machine_after=np.full(count, -1, dtype=np.int64),
        duration=instance.duration.copy(),
        order=np.zeros(count, dtype=np.int32),
        rank=np.zeros(count, dtype=np.int32),
        head=np.zeros(count, dtype=np.int64),
        tail=np.zeros(count, dtype=np.int64),
        path=np.zeros(count, dtype=np.int64),
    )


@kernel
def _find_heads_and_tails(g: _Graph) -> int:
    """Fill order, heads and tails, and return the makespan; -1 when the sequences contain a cycle."""
    count, done, read = len(g.order), 0, 0
    for operation in range(count):
        g.rank[operation] = (g.job_before[operation] >= 0) + (g.machine_before[operation] >= 0)
        if g.rank[operation] == 0:
            g.order[done] = operation
            done += 1
    while read < done:
        operation = g.order[read]
        read += 1
        for successor in (g.job_after[operation], g.machine_after[operation]):
            if successor >= 0:
                g.rank[successor] -= 1
                if g.rank[successor] == 0:
                    g.order[done] = successor
                    done += 1
    if done < count:
        return -1
    makespan = 0
    for index in range(count):
        operation = g.order[index]
        g.rank[operation] = index
        head = 0
        for before in (g.job_before[operation], g.machine_before[operation]):
            if before >= 0:
                head = max(head, g.head[before] + g.duration[before])
        g.head[operation] = head
        makespan = max(makespan, head + g.duration[operation])
    for index in range(count - 1, -1, -1):
        operation = g.order[index]
        tail = 0
        for after in (g.job_after[operation], g.machine_after[operation]):
            if after >= 0:
                tail = max(tail, g.tail[after] + g.duration[after])
        g.tail[operation] = tail
    return makespan


@kernel
def _find_lags(g: _Graph, operations: I64, lag: I64) -> None:
    """Fill (n, n) ``lag`` with the longest paths between the starts of operations, -1 where there is none."""
    for i in range(len(operations)):
        source = operations[i]
        g.path[source] = 0
        for index in range(g.rank[source] + 1, len(g.order)):
            operation = g.order[index]
            longest = -1
            for before in (g.job_before[operation], g.machine_before[operation]):
                # What stands before the source in the order has no path from it, and an old value.
                if before >= 0 and g.rank[before] >= g.rank[source] and g.path[before] >= 0:
                    longest = max(longest, g.path[before] + g.duration[before])
            g.path[operation] = longest
        for j in range(len(operations)):
            reached = i != j and g.rank[operations[j]] > g.rank[source]
            lag[i, j] = g.path[operations[j]] if reached else -1


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftingBottleneck:
    """Shifting bottleneck; one pass that ends by itself.

    Args:
        cycles: most reoptimisation cycles after each machine but the last; after the last they go on while they help.
        nodes: branch-and-bound nodes per one-machine problem; beyond them its best order so far is taken.

    Raises:
        ConfigError: negative cycles or no node.
    """

    cycles: int = 3
    nodes: int = 2000

    def __post_init__(self) -> None:
        if self.cycles < 0:
            raise ConfigError(f"option cycles: {self.cycles}, expected at least 0")
        if self.nodes < 1:
            raise ConfigError(f"option nodes: {self.nodes}, expected at least 1")

    def schedule(self, instance: JobShopInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the procedure's schedule; past the limit the remaining machines get list schedules."""
        _compile()
        started = time.perf_counter()
        run = _Run(self, instance, started + time_limit_s)
        return outcome(instance, run.schedule(), started=started)


class _Run:
    """One call of ``ShiftingBottleneck.schedule``."""

    def __init__(self, options: ShiftingBottleneck, instance: JobShopInstance, deadline: float) -> None:
        self._options, self._deadline = options, deadline
        self._graph = _new_graph(instance)
        groups = [np.flatnonzero(instance.machine == m).astype(np.int64) for m in range(instance.machines)]
        self._operations = [group for group in groups if len(group)]
        self._problems = [new_one_machine(len(group)) for group in self._operations]
        self._value = [0] * len(self._operations)

    def schedule(self) -> Schedule:
        """Sequence all machines and return the earliest starts."""
        waiting = list(range(len(self._operations)))
        sequenced: list[int] = []
        _find_heads_and_tails(self._graph)
        while waiting:
            orders = {machine: self._solve(machine) for machine in waiting}
            bottleneck = max(waiting, key=self._value.__getitem__)
            self._link(bottleneck, orders[bottleneck])
            waiting.remove(bottleneck)
            sequenced.append(bottleneck)
            makespan = _find_heads_and_tails(self._graph)
            self._reoptimise(sequenced, makespan, self._options.cycles if waiting else 2**31)
        return Schedule(start_time=self._graph.head.copy())

    @property
    def _late(self) -> bool:
        return time.perf_counter() >= self._deadline

    def _reoptimise(self, sequenced: list[int], makespan: int, cycles: int) -> None:
        """Sequence each machine anew while the others stay, the most critical first, until nothing improves."""
        for _ in range(cycles):
            before = makespan
            for machine in sorted(sequenced, key=self._value.__getitem__, reverse=True):
                if self._late or len(sequenced) < 2:
                    return
                makespan = self._resequence(machine, makespan)
            if makespan >= before:
                return

    def _resequence(self, machine: int, makespan: int) -> int:
        """Return the makespan after one machine has got a new sequence, or has kept its old one."""
        operations = self._operations[machine]
        old = operations[np.argsort(self._graph.rank[operations])]
        self._unlink(machine)
        _find_heads_and_tails(self._graph)
        self._link(machine, self._solve(machine))
        found = _find_heads_and_tails(self._graph)
        if found > makespan:  # only where the node limit has cut the search
            self._link(machine, old)
            found = _find_heads_and_tails(self._graph)
        return found

    def _solve(self, machine: int) -> I64:
        """Return the operations of a machine in their best order, and note its value."""
        operations, problem, graph = self._operations[machine], self._problems[machine], self._graph
        problem.head[:], problem.tail[:] = graph.head[operations], graph.tail[operations]
        problem.duration[:] = graph.duration[operations]
        _find_lags(graph, operations, problem.lag)
        self._value[machine] = solve_one_machine(problem, 1 if self._late else self._options.nodes)
        return operations[problem.best_order]

    def _link(self, machine: int, order: I64) -> None:
        self._unlink(machine)
        self._graph.machine_before[order[1:]] = order[:-1]
        self._graph.machine_after[order[:-1]] = order[1:]

    def _unlink(self, machine: int) -> None:
        self._graph.machine_before[self._operations[machine]] = -1
        self._graph.machine_after[self._operations[machine]] = -1


@functools.cache
def _compile() -> None:
    """Compile the kernels on first use, so that a time limit measures the search alone."""
    tiny = JobShopInstance.from_jobs([[(0, 1), (1, 1)], [(1, 1), (0, 1)]], name="tiny")
    _Run(ShiftingBottleneck(), tiny, 0.0).schedule()


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="jobshop/shifting-bottleneck",
        make=ShiftingBottleneck,  # type: ignore[arg-type]
        information="clairvoyant",
        summary="shifting bottleneck with reoptimisation and delayed precedence constraints",
        source="Adams, Balas and Zawack 1988; Carlier 1982; Balas, Lenstra and Vazacopoulos 1995",
    ),
)
