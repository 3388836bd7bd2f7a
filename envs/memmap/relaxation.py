"""The integer relaxation of memory mapping: everything about a plan but offsets and the order of copies.

Variables, all 0 or 1, for each fast layer: **access** (a use is served there), **kept** (the buffer stays from one
operation that uses it to the next), **fetched** (a copy brings it in before a use), **saved** (a copy brings the
result of its definition out). Per operation there is a latency, the roofline of what serves its accesses. Every plan
that the checker accepts is a point of this program, with at most the same latency:

- A fast read happens in a residence whose data came from the use before (kept) or by a copy since (fetched).
- Sizes of all residences at an operation fit into the layer, rounded up to its alignment. Buffers of one alias group
  may share an offset at an operation that uses both, so only the largest of them counts there.
- A copy needs bus time, so its residence covers at least as many operations as can hide it even if nothing else uses
  the bus and every access is fast.
- With ``supply`` "idle", up to any operation the bus serves all slow accesses and all copies due by then; the same
  from any operation on for copies that cannot begin earlier.

Sources: the temporal variables are those of integer programs for tensor placement such as MODeL (Steiner et al.,
ICML 2023); the copy windows are those of XLA's memory-space assignment.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import slow_latency_s
from schedrl.envs.memmap.linear_program import LinearProgram
from schedrl.envs.memmap.relaxation_times import RelaxationTimes

__all__ = ["Relaxation", "UseTable", "solve_relaxation", "use_table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UseTable:
    """Operations that access each buffer: use k of buffer b is row ``offset[b] + k``, in order of time."""

    offset: I32  # (N + 1,)
    op: I32  # (U,)
    of_access: I32  # (A,) the use that each access belongs to


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxation:
    """A bound on the latency and, in [0, 1], what the relaxation wants; column 0, the slow layer, is 0."""

    bound_s: float
    optimal: bool
    """False when the time limit stopped the solver; the bound holds all the same"""
    access: F64  # (A, L) the layer serves the access
    kept: F64  # (U, L) the buffer stays from the use to its next one
    fetched: F64  # (U, L) a copy into the layer ends just before the use
    saved: F64  # (N, L) a copy out of the layer follows the definition


def use_table(instance: MemoryMapInstance) -> UseTable:
    """Return the uses of every buffer."""
    order = instance.by_buffer[1]
    buffer, op = instance.access_buffer[order], instance.access_op[order]
    new = np.ones(len(order), dtype=np.bool_)
    new[1:] = (buffer[1:] != buffer[:-1]) | (op[1:] != op[:-1])
    of_access = np.empty(len(order), dtype=np.int32)
    of_access[order] = np.cumsum(new) - 1
    return UseTable(
        offset=np.searchsorted(buffer[new], np.arange(instance.buffers + 1)).astype(np.int32),
        op=op[new],
        of_access=of_access,
    )


def solve_relaxation(
    instance: MemoryMapInstance,
    *,
    integer: bool = False,
    time_limit_s: float = float("inf"),
    supply_s: F64 | None = None,
) -> Relaxation:
    """Solve the relaxation, with fractions or in integers (use a time limit for that).

    Both bounds hold for every plan that ``check_plan`` accepts, whether the solver finished or not. With ``supply_s``
    (T,), the seconds of copying that each operation hides in some plan, copies get the windows that they need there:
    what the relaxation then wants is closer to a plan, and ``bound_s`` no bound.
    """
    model = _Model(instance, supply_s)
    found = model.program.solve(time_limit_s) if integer else model.program.solve_relaxed(time_limit_s)
    # The last place is 0, for variables numbered -1; without a solution everything stays slow.
    pick = np.zeros(len(model.program.lower) + 1)
    if found.values is not None:
        pick[:-1] = np.clip(found.values, 0.0, 1.0)
    return Relaxation(
        bound_s=max(found.bound * model.unit, 0.0),
        optimal=found.optimal,
        access=pick[model.access],
        kept=pick[model.kept],
        fetched=pick[model.fetched],
        saved=pick[model.saved],
    )


class _Model:
    """Builds the program; times are in units of the mean slow latency of an operation, bytes in those of the layer."""

    def __init__(self, instance: MemoryMapInstance, supply_s: F64 | None = None) -> None:
        self.instance = instance
        self.program = LinearProgram()
        self.uses = use_table(instance)
        self.unit = slow_latency_s(instance) / instance.ops or 1.0
        self.times = RelaxationTimes(instance, self.unit, supply_s)
        shape = (instance.accesses, instance.layers)
        uses = (len(self.uses.op), instance.layers)
        # Numbers of variables, -1 where the relaxation knows that the answer is 0.
        self.access = np.full(shape, -1, dtype=np.int64)
        self.kept, self.fetched = np.full(uses, -1, dtype=np.int64), np.full(uses, -1, dtype=np.int64)
        self.saved = np.full((instance.buffers, instance.layers), -1, dtype=np.int64)
        self._written = [-1] * instance.buffers
        for access in np.flatnonzero(instance.access_write).tolist():
            self._written[int(instance.access_buffer[access])] = access
        self._readers: list[list[int]] = [[] for _ in self.uses.op]
        for access in np.flatnonzero(~instance.access_write).tolist():
            self._readers[int(self.uses.of_access[access])].append(access)
        self._clusters = _clusters(instance)
        self._access_variables()
        for layer in range(1, instance.layers):
            space = _Space(self.program, instance, layer)
            for buffer in np.flatnonzero(self.times.matters).tolist():
                if space.size[buffer] <= 1.0:
                    self._buffer(buffer, layer, space)
            space.finish()
        self._one_layer()
        self._no_refetch_before_saving()
        latency = self._latency()
        if instance.memory.supply == "idle":
            self._bus(latency)

    def _access_variables(self) -> None:
        """One variable per access and layer, the same for all accesses of an alias group."""
        instance = self.instance
        group = instance.access_group
        assert group is not None
        for layer in range(1, instance.layers):
            fits = instance.size <= (instance.memory.layers[layer].capacity_bytes or 0)
            shared: dict[int, int] = {}
            barred = set(group[(group >= 0) & ~fits[instance.access_buffer]].tolist())
            for access, number in enumerate(group.tolist()):
                if not fits[instance.access_buffer[access]] or number in barred:
                    continue
                if number < 0:
                    self.access[access, layer] = self.program.binary()
                else:
                    if number not in shared:
                        shared[number] = self.program.binary()
                    self.access[access, layer] = shared[number]

    def _buffer(self, buffer: int, layer: int, space: _Space) -> None:
        """Residences of a buffer in a layer: from its definition, or by copies."""
        program, times = self.program, self.times
        first, end = self.uses.offset[buffer : buffer + 2].tolist()
        op: list[int] = self.uses.op[first:end].tolist()
        cluster = [self._clusters.get((t, buffer), -1) for t in op]
        hidden = [t for t, number in zip(op, cluster, strict=True) if number >= 0]
        define = self._written[buffer]
        made = int(self.access[define, layer]) if define >= 0 else -1
        done = times.saved_after(buffer, op[0]) if define >= 0 else -1
        here: list[int] = []
        for k, t in enumerate(op):
            use, before = first + k, here
            if k == 0 and define >= 0:
                here = [made] if made >= 0 else []
                start = {made: t}
            else:
                start = {}
                if before:
                    self.kept[use - 1, layer] = kept = program.binary()
                    program.at_most([kept], before)
                    start[kept] = op[k - 1] + 1
                begin = times.fetched_from(buffer, t)
                if begin >= (op[0] + 1 if define >= 0 else 0):
                    self.fetched[use, layer] = fetched = program.binary()
                    start[fetched] = begin
                here = list(start)
            for variable, since in start.items():
                if variable >= 0:
                    space.occupy(buffer, variable, since, t, hidden)
            if cluster[k] >= 0:
                space.share(cluster[k], t, buffer, here)
            for access in self._readers[use]:
                if (reads := int(self.access[access, layer])) >= 0:
                    program.at_most([reads], here)
        if made >= 0:
            self._saving(buffer, layer, op, done)
            space.stay(buffer, int(self.saved[buffer, layer]), *self._gap(first, layer, op, done))

    def _gap(self, first: int, layer: int, op: list[int], done: int) -> tuple[int, int, int]:
        """Return the gap between uses in which a copy out ends: its kept variable, first and last operation."""
        k = int(np.searchsorted(op, done, side="right")) - 1
        last = op[k + 1] - 1 if k + 1 < len(op) else done
        return int(self.kept[first + k, layer]), op[k] + 1, min(last, done)

    def _saving(self, buffer: int, layer: int, op: list[int], done: int) -> None:
        """Without a copy out, a result made in a fast layer must stay there for all its uses, and is no output."""
        program, instance = self.program, self.instance
        first = int(self.uses.offset[buffer])
        made = int(self.access[self._written[buffer], layer])
        possible = done < instance.ops
        if instance.output[buffer]:
            if not possible:
                program.row([(made, 1.0)], upper=0.0)
            self.saved[buffer, layer] = made if possible else -1
        elif possible and op[-1] > done:
            self.saved[buffer, layer] = program.binary()
        saved = int(self.saved[buffer, layer])
        for k in range(1, len(op)):
            kept = int(self.kept[first + k - 1, layer])
            if op[k] <= done or saved < 0:
                program.at_most([made], [kept])
            elif saved != made:
                program.at_most([made], [kept, saved])

    def _one_layer(self) -> None:
        if self.instance.layers > 2:
            for row in np.unique(self.access[:, 1:], axis=0).tolist():
                self.program.row([(variable, 1.0) for variable in row], upper=1.0)

    def _no_refetch_before_saving(self) -> None:
        """A result made in fast memory cannot be fetched before a use that comes too early for both copies."""
        for buffer in np.flatnonzero(self.times.matters).tolist():
            define, (first, end) = self._written[buffer], self.uses.offset[buffer : buffer + 2].tolist()
            if define < 0 or not (self.access[define] >= 0).any():
                continue
            done = self.times.saved_after(buffer, int(self.uses.op[first]))
            made = [(variable, 1.0) for variable in self.access[define, 1:].tolist()]
            for use in range(first + 1, end):
                if self.times.fetched_from(buffer, int(self.uses.op[use])) > done:
                    break
                for fetched in self.fetched[use, self.fetched[use] >= 0].tolist():
                    self.program.row([*made, (fetched, 1.0)], upper=1.0)

    def _latency(self) -> list[int]:
        """Return one variable per operation for all its trips, at least its computing and its memory time."""
        instance, times = self.instance, self.times
        latency: list[int] = []
        for t in range(instance.ops):
            variable = self.program.variable(float(times.compute[t]), float(times.longest[t]), cost=1.0)
            terms = [(variable, 1.0)]
            for access in range(instance.op_offset[t], instance.op_offset[t + 1]):
                for layer in range(1, instance.layers):
                    terms.append((int(self.access[access, layer]), float(times.saving[access, layer])))
            self.program.row(terms, lower=float(times.slow[t]))
            latency.append(variable)
        return latency

    def _bus(self, latency: list[int]) -> None:
        """Bus time left before each operation after what is due by then, and after it what cannot start earlier."""
        instance, times = self.instance, self.times
        due: dict[int, list[tuple[int, float]]] = defaultdict(list)
        late: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for buffer in range(instance.buffers):
            first, end = self.uses.offset[buffer : buffer + 2].tolist()
            begin = int(self.uses.op[first]) + 1 if self._written[buffer] >= 0 else 0
            for layer in range(1, instance.layers):
                for use in range(first, end):
                    term = (int(self.fetched[use, layer]), -float(times.demand[buffer, 0]))
                    due[int(self.uses.op[use]) - 1].append(term)
                    late[begin].append(term)
                term = (int(self.saved[buffer, layer]), -float(times.demand[buffer, 1]))
                due[instance.ops - 1].append(term)
                late[begin].append(term)
        served: list[list[tuple[int, float]]] = []
        for t in range(instance.ops):
            terms = [(latency[t], 1.0)]
            for access in range(instance.op_offset[t], instance.op_offset[t + 1]):
                seconds = float(times.bus[access])
                terms += [(variable, seconds) for variable in self.access[access, 1:].tolist()]
            served.append(terms)
        total = float(times.longest.sum())
        for order, extra in ((range(instance.ops), due), (range(instance.ops - 1, -1, -1), late)):
            before = -1
            for t in order:
                left = self.program.variable(0.0, total)
                own = float(times.own_bus[t])
                self.program.row([(left, -1.0), (before, 1.0), *served[t], *extra[t]], lower=own)
                before = left


class _Space:
    """Sizes of everything that resides in one layer at each operation, as a sum carried from one to the next."""

    def __init__(self, program: LinearProgram, instance: MemoryMapInstance, layer: int) -> None:
        place = instance.memory.layers[layer]
        unit = place.alignment_bytes
        # Blocks that start at multiples of the alignment stay disjoint when their ends are rounded up.
        capacity = -(-(place.capacity_bytes or 0) // unit) * unit
        self.size: list[float] = ((-(-instance.size // unit) * unit) / capacity).tolist()
        self._program, self._ops = program, instance.ops
        self._change: dict[int, list[tuple[int, float]]] = defaultdict(list)
        self._rises: set[int] = set()
        self._shared: dict[int, dict[int, list[list[tuple[int, float]]]]] = defaultdict(lambda: defaultdict(list))

    def occupy(self, buffer: int, variable: int, first: int, last: int, hidden: list[int]) -> None:
        """Count a buffer from one operation to another, but at the hidden ones."""
        for t in [*(t for t in hidden if first <= t <= last), last + 1]:
            if first < t:
                self._change[first].append((variable, self.size[buffer]))
                self._change[t].append((variable, -self.size[buffer]))
                self._rises.add(first)
            first = t + 1

    def stay(self, buffer: int, variable: int, kept: int, first: int, last: int) -> None:
        """Count a buffer over part of a gap if the variable says so and it is not kept over the whole gap anyway."""
        if variable < 0 or first > last:
            return
        if kept >= 0:
            extra = self._program.variable(0.0, 1.0)
            self._program.at_most([variable], [kept, extra])
            variable = extra
        self.occupy(buffer, variable, first, last, [])

    def share(self, cluster: int, t: int, buffer: int, here: list[int]) -> None:
        """Count a buffer at an operation where others of its alias group may have the same bytes."""
        self._shared[t][cluster].append([(variable, self.size[buffer]) for variable in here])

    def finish(self) -> None:
        """Add the constraints on capacity."""
        program, level = self._program, -1
        pending: list[tuple[int, float]] = []
        for t in range(self._ops):
            pending += self._change[t]
            if t not in self._rises and t not in self._shared:
                continue
            after = program.variable(0.0, 1.0)
            program.row([(after, -1.0), (level, 1.0), *pending], lower=0.0, upper=0.0)
            level, pending = after, []
            if t in self._shared:
                largest = []
                for members in self._shared[t].values():
                    largest.append(program.variable(0.0, 1.0))
                    for terms in members:
                        program.row([(largest[-1], -1.0), *terms], upper=0.0)
                program.row([(level, 1.0), *((variable, 1.0) for variable in largest)], upper=1.0)


def _clusters(instance: MemoryMapInstance) -> dict[tuple[int, int], int]:
    """Return a number for (operation, buffer) where alias groups join several buffers; the same for those joined."""
    assert instance.access_group is not None
    parent: dict[tuple[int, int], tuple[int, int]] = {}

    def root(node: tuple[int, int]) -> tuple[int, int]:
        while parent.setdefault(node, node) != node:
            node = parent[node]
        return node

    first: dict[tuple[int, int], tuple[int, int]] = {}
    for access in np.flatnonzero(instance.access_group >= 0).tolist():
        op, group = int(instance.access_op[access]), int(instance.access_group[access])
        node = (op, int(instance.access_buffer[access]))
        parent[root(node)] = root(first.setdefault((op, group), node))
    members: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for node in list(parent):
        members[root(node)].append(node)
    joined = [nodes for nodes in members.values() if len(nodes) > 1]
    return {node: number for number, nodes in enumerate(joined) for node in nodes}
