"""The judge of memory plans, written from the definition of the game; it shares no code with the simulator."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from schedrl.envs.memmap.copy_queues import lateness_s, simulate_elapsed_s
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import program_latency_s, slow_latency_s
from schedrl.envs.memmap.plan import MemoryPlan

__all__ = ["MAX_LISTED", "check_plan", "plan_objectives"]

MAX_LISTED = 20


@dataclass(slots=True)
class _Judge:
    """An instance and a plan as plain lists, and the violations found so far."""

    instance: MemoryMapInstance
    plan: MemoryPlan
    found: list[str] = field(default_factory=list)
    residences: dict[int, list[tuple[int, int, int, int]]] = field(default_factory=lambda: defaultdict(list))
    inward: dict[int, list[tuple[int, int, int]]] = field(default_factory=lambda: defaultdict(list))
    outward: dict[int, list[tuple[int, int, int]]] = field(default_factory=lambda: defaultdict(list))

    def buffer(self, number: int) -> str:
        return f"buffer {self.instance.buffer_labels[number]}"

    def op(self, number: int) -> str:
        return f"operation {self.instance.op_labels[number]}" if number < self.instance.ops else "the end"

    def layer(self, number: int) -> str:
        return self.instance.memory.layers[number].name


def check_plan(instance: MemoryMapInstance, plan: MemoryPlan) -> list[str]:
    """Return every way in which a plan breaks the instance, in words; an empty list means valid.

    Residences lie within their layer, aligned, and none overlaps another in time and bytes, but for two buffers of an
    alias group at the operation that hands over from one to the other. A fast access happens during a residence whose
    data have arrived: from the buffer's definition in that layer, or by a copy that ends in time. A slow read and an
    inward copy need a valid slow copy, from the start for parameters, after a definition in the slow layer, or after
    an outward copy; outputs need one at the end. All members of an alias group use the same layer and offset. Copies
    are done in time when served first come, first served, in the time that operations leave the bus idle, and not too
    many are under way at once. At most ``MAX_LISTED`` violations are spelled out.
    """
    if problem := _range_problem(instance, plan):
        return [problem]
    judge = _Judge(instance, plan)
    for buffer, layer, offset, first, last in plan.residences.tolist():
        judge.residences[buffer].append((layer, offset, first, last))
    for buffer, inward, layer, start, end in plan.copies.tolist():
        (judge.inward if inward else judge.outward)[buffer].append((layer, start, end))
    for rule in (_placement, _overlaps, _accesses, _outputs, _copies, _groups, _bandwidth):
        rule(judge)
        if len(judge.found) >= MAX_LISTED:
            break
    return judge.found[:MAX_LISTED]


def _range_problem(instance: MemoryMapInstance, plan: MemoryPlan) -> str | None:
    if len(plan.access_layer) != instance.accesses:
        return f"the plan has {len(plan.access_layer)} layers for {instance.accesses} accesses"
    if (plan.access_layer >= instance.layers).any():
        return f"the plan uses layer {plan.access_layer.max()}, there are {instance.layers}"
    last_op, buffers = instance.ops - 1, instance.buffers - 1
    limits = {
        "residences": ((0, buffers), (1, instance.layers - 1), (0, 2**60), (0, last_op), (0, last_op)),
        "copies": ((0, buffers), (0, 1), (1, instance.layers - 1), (-1, last_op), (0, instance.ops)),
    }
    for name, bounds in limits.items():
        table = getattr(plan, name)
        for column, (low, high) in enumerate(bounds):
            if (bad := np.flatnonzero((table[:, column] < low) | (table[:, column] > high))).size:
                return f"{name}: row {bad[0]} column {column} is {table[bad[0], column]}, expected {low} to {high}"
        if (bad := np.flatnonzero(table[:, 3] > table[:, 4])).size:
            return f"{name}: row {bad[0]} ends at operation {table[bad[0], 4]}, before its begin {table[bad[0], 3]}"
    return None


def _placement(judge: _Judge) -> None:
    for buffer, residences in judge.residences.items():
        size = int(judge.instance.size[buffer])
        for layer, offset, first, _ in residences:
            place = judge.instance.memory.layers[layer]
            if offset + size > (place.capacity_bytes or 0):
                judge.found.append(
                    f"capacity: {judge.buffer(buffer)} ends at byte {offset + size} of {place.name} at "
                    f"{judge.op(first)}, which has {place.capacity_bytes}"
                )
            if offset % place.alignment_bytes:
                judge.found.append(
                    f"alignment: {judge.buffer(buffer)} is at byte {offset} of {place.name}, no multiple of "
                    f"{place.alignment_bytes}"
                )


def _overlaps(judge: _Judge) -> None:
    instance = judge.instance
    rows = [(layer, first, last, offset, offset + int(instance.size[b]), b) for b, layer, offset, first, last in
            judge.plan.residences.tolist()]  # fmt: skip
    rows.sort()
    alive: list[tuple[int, int, int, int, int, int]] = []
    for row in rows:
        layer, first, _, low, high, buffer = row
        alive = [other for other in alive if other[0] == layer and other[2] >= first]
        for other in alive:
            if other[3] >= high or low >= other[4] or _hands_over(instance, other, row):
                continue
            judge.found.append(
                f"overlap: {judge.buffer(other[5])} and {judge.buffer(buffer)} share bytes {max(low, other[3])} to "
                f"{min(high, other[4])} of {judge.layer(layer)} at {judge.op(first)}"
            )
            if len(judge.found) >= MAX_LISTED:
                return
        alive.append(row)


def _hands_over(instance: MemoryMapInstance, one: tuple[int, ...], two: tuple[int, ...]) -> bool:
    """Whether one residence ends where the other begins, at an operation that accesses both in one alias group."""
    first = max(one[1], two[1])
    earlier, later = (one, two) if one[1] < two[1] else (two, one)
    if one[3] != two[3] or earlier[2] != first or later[1] != first or one[5] == two[5]:
        return False
    own = slice(*instance.op_offset[first : first + 2].tolist())
    assert instance.access_group is not None
    group, buffer = instance.access_group[own], instance.access_buffer[own]
    shared = set(group[buffer == one[5]].tolist()) & set(group[buffer == two[5]].tolist())
    return bool(shared - {-1})


def _arrival(judge: _Judge, buffer: int, residence: tuple[int, int, int, int]) -> int | None:
    """Return the first operation that finds the buffer's data in a residence, None when they never arrive."""
    layer, _, first, _ = residence
    instance, arrivals = judge.instance, []
    defined = int(instance.definition[buffer])
    if defined == first:
        own = slice(*instance.op_offset[defined : defined + 2].tolist())
        here = instance.access_write[own] & (instance.access_buffer[own] == buffer)
        if (judge.plan.access_layer[own][here] == layer).all():
            arrivals.append(first)
    arrivals += [end for to, start, end in judge.inward[buffer] if to == layer and start + 1 == first]
    return min(arrivals, default=None)


def _valid_from(judge: _Judge, buffer: int) -> int:
    """Return the first operation before which the slow layer holds the buffer's data; past the end when never."""
    instance = judge.instance
    defined = int(instance.definition[buffer])
    if defined < 0:
        return 0
    own = slice(*instance.op_offset[defined : defined + 2].tolist())
    here = instance.access_write[own] & (instance.access_buffer[own] == buffer)
    if (judge.plan.access_layer[own][here] == 0).all():
        return defined + 1
    return min((end for _, _, end in judge.outward[buffer]), default=instance.ops + 1)


def _accesses(judge: _Judge) -> None:
    instance = judge.instance
    layers = judge.plan.access_layer.tolist()
    rows = zip(instance.access_op.tolist(), instance.access_buffer.tolist(), instance.access_write.tolist(), layers,
               strict=True)  # fmt: skip
    for op, buffer, write, layer in rows:
        verb = "writes" if write else "reads"
        if layer == 0:
            if not write and _valid_from(judge, buffer) > op:
                judge.found.append(
                    f"validity: {judge.op(op)} reads {judge.buffer(buffer)} from {judge.layer(0)}, which holds no "
                    "valid copy then"
                )
            continue
        around = [r for r in judge.residences[buffer] if r[0] == layer and r[2] <= op <= r[3]]
        if not around:
            judge.found.append(
                f"residency: {judge.op(op)} {verb} {judge.buffer(buffer)} in {judge.layer(layer)}, where it does not "
                "reside then"
            )
            continue
        times = [_arrival(judge, buffer, residence) for residence in around]
        if not any(time is not None and time <= op for time in times):
            judge.found.append(
                f"residency: {judge.op(op)} {verb} {judge.buffer(buffer)} in {judge.layer(layer)} before its data "
                "have arrived there"
            )
        if len(judge.found) >= MAX_LISTED:
            return


def _outputs(judge: _Judge) -> None:
    for buffer in np.flatnonzero(judge.instance.output).tolist():
        if _valid_from(judge, buffer) > judge.instance.ops:
            judge.found.append(
                f"validity: output {judge.buffer(buffer)} has no valid copy in {judge.layer(0)} at the end"
            )


def _copies(judge: _Judge) -> None:
    for buffer, copies in judge.inward.items():
        for layer, start, end in copies:
            if _valid_from(judge, buffer) > start + 1:
                judge.found.append(
                    f"validity: the copy of {judge.buffer(buffer)} into {judge.layer(layer)} begins after operation "
                    f"{start}, when {judge.layer(0)} holds no valid copy"
                )
            if not any(r[0] == layer and r[2] == start + 1 and r[3] >= end - 1 for r in judge.residences[buffer]):
                judge.found.append(
                    f"residency: the copy of {judge.buffer(buffer)} into {judge.layer(layer)} after operation {start} "
                    "has no place to go to"
                )
    for buffer, copies in judge.outward.items():
        for layer, start, end in copies:
            around = [r for r in judge.residences[buffer] if r[0] == layer and r[2] <= start + 1 and r[3] >= end - 1]
            times = [_arrival(judge, buffer, residence) for residence in around]
            if not any(time is not None and time <= start + 1 for time in times) or (
                start < int(judge.instance.definition[buffer])
            ):
                judge.found.append(
                    f"residency: {judge.buffer(buffer)} is not in {judge.layer(layer)} for the whole of its copy to "
                    f"{judge.layer(0)} after operation {start}"
                )


def _groups(judge: _Judge) -> None:
    instance = judge.instance
    places: dict[int, tuple[int, set[int], int, int]] = {}
    assert instance.access_group is not None
    for access in np.flatnonzero(instance.access_group >= 0).tolist():
        group, op = int(instance.access_group[access]), int(instance.access_op[access])
        buffer, layer = int(instance.access_buffer[access]), int(judge.plan.access_layer[access])
        offsets = {r[1] for r in judge.residences[buffer] if r[0] == layer and r[2] <= op <= r[3]} if layer else {-1}
        known = places.setdefault(group, (layer, offsets, op, buffer))
        if known[0] != layer or not known[1] & offsets:
            judge.found.append(
                f"group: {judge.op(op)} uses {judge.buffer(buffer)} in {judge.layer(layer)} at {sorted(offsets)}, "
                f"its alias group began with {judge.buffer(known[3])} in {judge.layer(known[0])} at {sorted(known[1])}"
            )
        else:
            places[group] = (layer, known[1] & offsets, known[2], known[3])


def _bandwidth(judge: _Judge) -> None:
    instance, copies = judge.instance, judge.plan.copies
    for copy in np.flatnonzero(lateness_s(instance, judge.plan) > 0).tolist():
        buffer, inward, layer, start, end = copies[copy].tolist()
        way = f"into {judge.layer(layer)}" if inward else f"from {judge.layer(layer)}"
        judge.found.append(
            f"bandwidth: the copy of {judge.buffer(buffer)} {way} after operation {start} is not done before "
            f"{judge.op(end)}"
        )
    for inward, way in ((1, "inward"), (0, "outward")):
        chosen = copies[copies[:, 1] == inward]
        change = np.zeros(instance.ops + 2, dtype=np.int64)
        np.add.at(change, chosen[:, 3] + 1, 1)
        np.add.at(change, chosen[:, 4], -1)
        under_way = np.cumsum(change)
        if len(chosen) and under_way.max() > instance.memory.outstanding_copies:
            judge.found.append(
                f"bandwidth: {under_way.max()} {way} copies are under way at operation {int(under_way.argmax())}, "
                f"{instance.memory.outstanding_copies} may be"
            )


def plan_objectives(instance: MemoryMapInstance, plan: MemoryPlan) -> dict[str, float]:
    """Return the objectives of a valid plan, all to be minimised.

    ``latency`` is the program's time in seconds, all copies hidden as the rules demand; ``relative_latency`` is its
    share of the latency without fast memory; ``elapsed`` the latency under XLA's two-queue model, stalls included;
    ``copied_bytes`` what copies move; ``peak_bytes`` the most bytes that residences reach in the first fast layer.
    """
    latency, slow = program_latency_s(instance, plan.access_layer), slow_latency_s(instance)
    first = plan.residences[plan.residences[:, 1] == 1]
    tops = first[:, 2] + instance.size[first[:, 0]]
    return {
        "latency": latency,
        "relative_latency": latency / slow if slow > 0 else 1.0,
        "elapsed": simulate_elapsed_s(instance, plan),
        "copied_bytes": float(instance.size[plan.copies[:, 0]].sum()),
        "peak_bytes": float(tops.max(initial=0)),
    }
