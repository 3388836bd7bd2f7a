"""The joint model of memory mapping for CP-SAT: layers, residences with offsets, and copies in the queue of the bus.

Bytes come in steps that divide all sizes. Seconds become steps such that whatever the model finds is a plan: demands
are rounded up and what operations hide is rounded down, without the overhead of slow accesses. A use of a buffer in a
fast layer is kept from the use before, fetched by a copy, or the definition. Rectangles over operations and bytes do
not overlap; members of an alias group at one operation have a rectangle together, as large as the largest. Copies are
served one at a time: intervals on an axis of hidden seconds, where operation t owns moment t to moment t + 1.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from schedrl.baselines.memmap.time_steps import TimeSteps, down, up
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.plan import MemoryPlan
from schedrl.envs.memmap.relaxation import use_table

__all__ = ["JointModel"]


@dataclass(frozen=True, slots=True)
class _Copy:
    """A copy that may happen: whether, when its service begins, and an operation that bounds its residence."""

    present: Any
    begin: Any
    bound: Any
    """copy in: first operation of the residence; copy out: the operation before which it is done"""
    row: tuple[int, int, int, int]
    """buffer, inward, layer, and the use that it serves or the definition"""


@dataclass(slots=True)
class _Place:
    """A use of a buffer that a layer may serve, and how its data get there; None where they cannot."""

    present: Any
    offset: Any
    kept: Any = None
    fetched: _Copy | None = None


class JointModel:
    """A CP-SAT model of an instance; ``plan`` reads a solution of it.

    Args:
        instance: the program.
        model: an empty ``cp_model.CpModel``.
    """

    def __init__(self, instance: MemoryMapInstance, model: Any) -> None:
        self.instance, self.model = instance, model
        self.access: dict[tuple[int, int], Any] = {}
        self._places: dict[tuple[int, int], _Place] = {}
        self._saved: dict[tuple[int, int], _Copy] = {}
        self._copies: list[_Copy] = []
        self._service: list[Any] = []
        self._under_way: tuple[list[Any], list[Any]] = ([], [])
        self._unit: dict[int, int] = {}
        self._uses = use_table(instance)
        self._of_use: list[list[int]] = [[] for _ in self._uses.op]
        for access, use in enumerate(self._uses.of_access.tolist()):
            self._of_use[use].append(access)
        self._steps = TimeSteps(instance)
        self._joined = _joined_uses(instance, self._uses.of_access.tolist())
        self._access_literals()
        self._moment = self._time()
        for layer in range(1, instance.layers):
            self._layer(layer)
        for buffer in np.flatnonzero(instance.definition >= 0).tolist():
            self._validity(buffer)
        model.add_no_overlap(self._service)
        for intervals in self._under_way:
            if len(intervals) > instance.memory.outstanding_copies:
                model.add_cumulative(intervals, [1] * len(intervals), instance.memory.outstanding_copies)

    def plan(self, value: Any) -> MemoryPlan:
        """Return the plan of a solution; ``value`` returns the value of an expression."""
        instance, ops = self.instance, self._uses.op
        layer = np.zeros(instance.accesses, dtype=np.int8)
        for (access, number), literal in self.access.items():
            if value(literal):
                layer[access] = number
        moment = [value(variable) for variable in self._moment]
        first: dict[tuple[int, int], int] = {}
        last: dict[tuple[int, int], int] = {}
        copies: list[tuple[int, int, int, int, int]] = []
        for copy in sorted((copy for copy in self._copies if value(copy.present)), key=lambda copy: value(copy.begin)):
            buffer, inward, number, use = copy.row
            # The operation that hides the begin of the service: no later copy begins before an earlier one.
            begin = int(np.searchsorted(moment, value(copy.begin), side="right")) - 1
            if inward:
                first[use, number] = begin
                copies.append((buffer, 1, number, begin - 1, int(ops[use])))
            else:
                last[use, number] = value(copy.bound) - 1
                copies.append((buffer, 0, number, begin - 1, value(copy.bound)))
        rows: list[list[int]] = []
        # Layer by layer, so that what a use is kept from is the row before.
        for (use, number), place in sorted(self._places.items(), key=lambda item: (item[0][1], item[0][0])):
            if not value(place.present):
                continue
            op = int(ops[use])
            if place.kept is not None and value(place.kept):
                rows[-1][4] = max(rows[-1][4], op)
            else:
                buffer = int(instance.access_buffer[self._of_use[use][0]])
                until = max(op, last.get((use, number), op))
                offset = value(place.offset) * self._unit[number]
                rows.append([buffer, number, offset, first.get((use, number), op), until])
        return MemoryPlan(access_layer=layer, residences=np.array(rows), copies=np.array(copies))

    def hint(self, plan: MemoryPlan) -> None:
        """Suggest the layers of a plan to the solver."""
        # A group's accesses have one literal, which takes one hint.
        wanted = {
            literal.index: (literal, bool(plan.access_layer[access] == layer))
            for (access, layer), literal in self.access.items()
        }
        for literal, value in wanted.values():
            self.model.add_hint(literal, value)

    def _access_literals(self) -> None:
        """One literal per access and layer, the same for an alias group; each access has at most one layer."""
        instance, model = self.instance, self.model
        assert instance.access_group is not None
        shared: dict[tuple[int, int], Any] = {}
        for access, group in enumerate(instance.access_group.tolist()):
            for layer in range(1, instance.layers):
                if group < 0 or (group, layer) not in shared:
                    shared[group, layer] = model.new_bool_var("")
                self.access[access, layer] = shared[group, layer]
            if instance.layers > 2:
                model.add_at_most_one(self.access[access, layer] for layer in range(1, instance.layers))

    def _time(self) -> list[Any]:
        """Add the latency as the objective, and return the hidden steps before each operation."""
        instance, model, steps = self.instance, self.model, self._steps
        assert instance.access_bytes is not None
        latencies: list[Any] = []
        moment: list[Any] = [0]
        for t in range(instance.ops):
            own = range(instance.op_offset[t], instance.op_offset[t + 1])
            served = {
                access: [
                    (self.access[access, layer], steps.access[access, layer]) for layer in range(1, instance.layers)
                ]
                for access in own
            }
            slow = {access: 1 - sum(literal for literal, _ in served[access]) for access in own}
            memory = sum(round(steps.access[access, 0]) * slow[access] for access in own)
            memory += sum(round(taken) * literal for choice in served.values() for literal, taken in choice)
            longest = up(float(steps.longest[t])) + 2 * len(own) + 2
            latency = model.new_int_var(round(steps.compute[t]), longest, "")
            latencies.append(latency)
            model.add(latency >= memory)
            if (window := instance.memory.overhead_window_bytes) > 0:
                # The lesser of the overhead of all slow bytes and that of a full window: the solver may choose.
                full, part = model.new_bool_var(""), float(steps.overhead[t])
                overhead = sum(round(part * float(instance.access_bytes[access])) * slow[access] for access in own)
                model.add(latency >= memory + overhead).only_enforce_if(full.negated())
                model.add(latency >= memory + round(part * window)).only_enforce_if(full)
            if instance.memory.supply == "elapsed":
                moment.append(moment[-1] + down(float(steps.all_slow[t])))
                continue
            idle = down(float(steps.compute[t])) - sum(up(float(steps.access[a, 0])) * slow[a] for a in own)
            fast = sum(down(taken) * literal for choice in served.values() for literal, taken in choice)
            hidden = model.new_int_var(0, longest, "")
            model.add_max_equality(hidden, [0, idle, fast])
            moment.append(model.new_int_var(0, steps.horizon, ""))
            model.add(moment[-1] == moment[-2] + hidden)
        model.minimize(sum(latencies))
        return moment

    def _layer(self, layer: int) -> None:
        """Add all residences in a layer."""
        instance, place = self.instance, self.instance.memory.layers[layer]
        rounded = -(-instance.size // place.alignment_bytes) * place.alignment_bytes
        fits = instance.size <= (place.capacity_bytes or 0)
        steps = [*rounded[fits].tolist(), *([place.alignment_bytes] if place.alignment_bytes > 1 else [])]
        unit = self._unit[layer] = math.gcd(*steps) or 1
        # Only the last bytes of the layer may be fewer than a rounded size.
        highest = ((place.capacity_bytes or 0) - instance.size) // unit
        space = _Space(self.model, layer, highest.tolist(), (rounded // unit).tolist())
        assert instance.access_group is not None
        for group in range(instance.groups):
            members = np.flatnonzero(instance.access_group == group).tolist()
            if not members:
                continue
            buffers = instance.access_buffer[members]
            literal = self.access[members[0], layer]
            if not fits[buffers].all():
                self.model.add(literal == 0)
                continue
            highest = min(space.highest[buffer] for buffer in buffers.tolist())
            space.group_offset[group] = self.model.new_int_var(0, highest, "")
            joined: dict[int, int] = defaultdict(int)
            for access in members:
                if self._joined.get(int(self._uses.of_access[access])) == group:
                    op, size = int(instance.access_op[access]), space.size[int(instance.access_buffer[access])]
                    joined[op] = max(joined[op], size)
            for op, size in joined.items():
                space.block(op, op + 1, space.group_offset[group], size, literal)
        for buffer in range(instance.buffers):
            if fits[buffer]:
                self._buffer(buffer, space)
            else:
                for access in np.flatnonzero(instance.access_buffer == buffer).tolist():
                    self.model.add(self.access[access, layer] == 0)
        self.model.add_no_overlap_2d(space.times, space.bytes)

    def _buffer(self, buffer: int, space: _Space) -> None:
        instance, model, layer = self.instance, self.model, space.layer
        first, end = self._uses.offset[buffer : buffer + 2].tolist()
        op, size = self._uses.op.tolist(), space.size[buffer]
        define = int(instance.definition[buffer])
        before: _Place | None = None
        for use in range(first, end):
            own = 0 if use in self._joined else 1
            offset = model.new_int_var(0, space.highest[buffer], "")
            if use == first and define >= 0:
                place = _Place(self.access[self._of_use[use][0], layer], offset)
                if own:
                    space.block(op[use], op[use] + 1, offset, size, place.present)
            else:
                place = _Place(model.new_bool_var(""), offset)
                ways = []
                if before is not None:
                    place.kept = model.new_bool_var("")
                    ways.append(place.kept)
                    model.add_implication(place.kept, before.present)
                    model.add(offset == before.offset).only_enforce_if(place.kept)
                    space.block(op[use - 1] + 1, op[use] + own, offset, size, place.kept)
                if define + 1 < op[use]:
                    place.fetched = self._fetched(buffer, use, space)
                    ways.append(place.fetched.present)
                    space.block(place.fetched.bound, op[use] + own, offset, size, place.fetched.present)
                model.add(sum(ways) == place.present)
            self._serve(use, place, size, space)
            self._places[use, layer] = before = place
        if define >= 0 and define + 2 <= instance.ops:
            self._saving(buffer, space)

    def _serve(self, use: int, place: _Place, size: int, space: _Space) -> None:
        """Accesses need the place; those of an alias group at the offset of the group."""
        group = self.instance.access_group
        assert group is not None
        for access in self._of_use[use]:
            literal, number = self.access[access, space.layer], int(group[access])
            self.model.add_implication(literal, place.present)
            if number in space.group_offset:
                self.model.add(place.offset == space.group_offset[number]).only_enforce_if(literal)
            if self._joined.get(use, -1) == number >= 0:
                # Where the group is slow, a buffer that stays has its bytes to itself.
                alone, op = self.model.new_bool_var(""), int(self._uses.op[use])
                self.model.add_bool_or([alone, literal, place.present.negated()])
                space.block(op, op + 1, place.offset, size, alone)

    def _fetched(self, buffer: int, use: int, space: _Space) -> _Copy:
        """A copy in whose residence begins after the definition and before the use."""
        model, op = self.model, int(self._uses.op[use])
        bound = model.new_int_var(int(self.instance.definition[buffer]) + 1, op - 1, "")
        copy = self._served(bound, (buffer, 1, space.layer, use))
        known = model.new_int_var(0, self._steps.horizon, "")
        model.add_element(bound, self._moment, known)
        model.add(copy.begin >= known).only_enforce_if(copy.present)
        model.add(copy.begin + self._demand(copy) <= self._moment[op]).only_enforce_if(copy.present)
        self._pending(copy, bound, op)
        return copy

    def _saving(self, buffer: int, space: _Space) -> None:
        """A copy out, which ends while the residence from the definition lasts: up to a use, or within a gap."""
        model, ops, layer = self.model, self.instance.ops, space.layer
        first, end = self._uses.offset[buffer : buffer + 2].tolist()
        op, define = self._uses.op.tolist(), int(self.instance.definition[buffer])
        done = model.new_int_var(define + 2, ops, "")
        copy = self._served(done, (buffer, 0, layer, first))
        known = model.new_int_var(0, self._steps.horizon, "")
        model.add_element(done, self._moment, known)
        model.add(copy.begin >= self._moment[define + 1]).only_enforce_if(copy.present)
        model.add(copy.begin + self._demand(copy) <= known).only_enforce_if(copy.present)
        self._pending(copy, define + 1, done)
        ways = []
        still = self._places[first, layer].present
        model.add_implication(copy.present, still)
        for use in range(first, end):
            place, kept = self._places[use, layer], None
            if use > first:
                longer = model.new_bool_var("")
                model.add_implication(longer, still)
                model.add_implication(longer, place.kept)
                still = longer
            if use + 1 < end:
                kept = self._places[use + 1, layer].kept
            until, tail = model.new_bool_var(""), model.new_bool_var("")
            ways += [until, tail]
            model.add_implication(until, still)
            model.add(done <= op[use] + 1).only_enforce_if(until)
            model.add_implication(tail, still)
            if kept is not None:
                model.add_implication(tail, kept.negated())
            model.add(done <= (op[use + 1] if use + 1 < end else ops)).only_enforce_if(tail)
            model.add(done >= op[use] + 2).only_enforce_if(tail)
            space.block(op[use] + 1, done, place.offset, space.size[buffer], tail)
        model.add(sum(ways) == copy.present)
        self._saved[buffer, layer] = copy

    def _served(self, bound: Any, row: tuple[int, int, int, int]) -> _Copy:
        model = self.model
        copy = _Copy(model.new_bool_var(""), model.new_int_var(0, self._steps.horizon, ""), bound, row)
        demand = self._demand(copy)
        self._service.append(model.new_optional_fixed_size_interval_var(copy.begin, demand, copy.present, ""))
        self._copies.append(copy)
        return copy

    def _demand(self, copy: _Copy) -> int:
        return up(float(self._steps.demand[copy.row[0], copy.row[1]]))

    def _pending(self, copy: _Copy, first: Any, end: Any) -> None:
        model = self.model
        length = model.new_int_var(0, self.instance.ops, "")
        self._under_way[copy.row[1]].append(model.new_optional_interval_var(first, length, end, copy.present, ""))

    def _validity(self, buffer: int) -> None:
        """Reading and fetching what was made in fast memory need a copy out before."""
        instance, model = self.instance, self.model
        first, end = self._uses.offset[buffer : buffer + 2].tolist()
        fast = range(1, instance.layers)
        for layer in fast:
            made = self.access[self._of_use[first][0], layer]
            saved = self._saved.get((buffer, layer))
            if instance.output[buffer]:
                model.add_implication(made, saved.present) if saved else model.add(made == 0)
            for use in range(first + 1, end):
                op = int(self._uses.op[use])
                for access in self._of_use[use]:
                    served = [self.access[access, other] for other in fast]
                    model.add_bool_or([made.negated(), *served, *([saved.present] if saved else [])])
                    if saved:
                        slow = [literal.negated() for literal in served]
                        model.add(saved.bound <= op).only_enforce_if([made, *slow])
                for other in fast:
                    place = self._places.get((use, other))
                    if place is None or place.fetched is None:
                        continue
                    both = [made, place.fetched.present]
                    if saved is None:
                        model.add_bool_or([literal.negated() for literal in both])
                    else:
                        model.add_bool_or([*(literal.negated() for literal in both), saved.present])
                        model.add(place.fetched.bound >= saved.bound).only_enforce_if(both)


class _Space:
    """The rectangles of a layer."""

    def __init__(self, model: Any, layer: int, highest: list[int], size: list[int]) -> None:
        self.layer, self.highest, self.size = layer, highest, size
        self.group_offset: dict[int, Any] = {}
        self.times: list[Any] = []
        self.bytes: list[Any] = []
        self._model = model

    def block(self, first: Any, end: Any, offset: Any, size: int, present: Any) -> None:
        """Take bytes from one operation until before another, where a literal holds."""
        model = self._model
        if isinstance(first, int) and isinstance(end, int):
            if first >= end:
                return
            times = model.new_optional_fixed_size_interval_var(first, end - first, present, "")
        else:
            times = model.new_optional_interval_var(first, model.new_int_var(0, 2**20, ""), end, present, "")
        self.times.append(times)
        self.bytes.append(model.new_optional_fixed_size_interval_var(offset, size, present, ""))


def _joined_uses(instance: MemoryMapInstance, of_access: list[int]) -> dict[int, int]:
    """Return the alias group in which a use shares its bytes with another buffer at its operation, by use."""
    assert instance.access_group is not None
    together: dict[tuple[int, int], list[int]] = defaultdict(list)
    for access in np.flatnonzero(instance.access_group >= 0).tolist():
        together[int(instance.access_op[access]), int(instance.access_group[access])].append(access)
    joined: dict[int, int] = {}
    for (_, group), accesses in together.items():
        uses = {of_access[access] for access in accesses}
        # A buffer in several groups at one operation shares bytes in the first one only.
        if len(uses) > 1 and not uses & set(joined):
            joined |= dict.fromkeys(uses, group)
    return joined
