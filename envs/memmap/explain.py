"""Why the accesses of a buffer are served by the layer that serves them: ``schedrl explain``."""

from __future__ import annotations

import difflib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from schedrl.arrays import F64, I8
from schedrl.envs.memmap.bus_use import bus_use, copy_demand_s
from schedrl.envs.memmap.counterfactual import Outcome, Room, Way, outcome_of
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import op_latency_s, program_latency_s, slow_latency_s
from schedrl.envs.memmap.packing import OffsetPackingInstance, Packing, max_live
from schedrl.envs.memmap.plan import MemoryPlan
from schedrl.envs.memmap.units import bytes_text, seconds_text
from schedrl.errors import UnknownNameError

__all__ = ["LEAST_BENEFIT", "Reason", "Verdict", "explain", "explain_plan"]

Reason = Literal["fast", "no benefit", "capacity", "bandwidth", "live range", "alias group", "open"]
LEAST_BENEFIT = 1e-3
"""share of its operation's latency that a move must save to count as one"""
_MOST_BUFFERS = 12
_MOST_OCCUPANTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Why one access is where it is, with everything else in the plan as it is.

    ``fast``: a fast layer serves it. Of a slow access: ``no benefit`` when the best layer would save less than 0.1 %
    of the operation's latency; ``capacity``, ``bandwidth`` and ``live range`` as in ``outcome_of``; ``alias group``
    when only the other members of its group are in the way; ``open`` when nothing is, so that the plan can be bettered.
    """

    access: int
    layer: int
    """that serves the access"""
    reason: Reason
    saving_s: float
    """what a fast access saves over a slow one, or a slow one would save, over all trips"""
    text: str


def explain(instance: MemoryMapInstance, plan: MemoryPlan, buffer: int) -> list[Verdict]:
    """Return a verdict per access of a buffer of a valid plan, in order of time."""
    return _Explainer(instance, plan).verdicts(buffer)


def explain_plan(
    instance: MemoryMapInstance | OffsetPackingInstance, solution: MemoryPlan | Packing, subject: str | None = None
) -> list[str]:
    """Return lines that explain a valid solution: one buffer by label or number, or all in short.

    Without a subject, a plan's lines count what keeps accesses in the slow layer and name the buffers that would save
    the most; a packing's name the peak and what reaches it.

    Raises:
        UnknownNameError: there is no such buffer.
    """
    if isinstance(instance, OffsetPackingInstance):
        assert isinstance(solution, Packing)
        if subject is None:
            return _packing_summary(instance, solution)
        return _packing_of_buffer(instance, solution, _find(instance.labels, subject))
    assert isinstance(solution, MemoryPlan)
    if subject is None:
        return _plan_summary(instance, solution)
    buffer = _find(instance.buffer_labels, subject)
    return [_heading(instance, buffer), *(verdict.text for verdict in explain(instance, solution, buffer))]


def _find(labels: Sequence[str], subject: str) -> int:
    if subject in labels:
        return labels.index(subject)
    if subject.isdecimal() and int(subject) < len(labels):
        return int(subject)
    close = difflib.get_close_matches(subject, labels, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {len(labels)}, such as {labels[0]!r}"
    raise UnknownNameError(f"unknown buffer {subject!r}; {hint}")


class _Explainer:
    """A plan with what every verdict needs."""

    def __init__(self, instance: MemoryMapInstance, plan: MemoryPlan) -> None:
        self.instance, self.plan = instance, plan
        self.latency = op_latency_s(instance, plan.access_layer)
        self.bus = bus_use(instance, plan)

    def verdicts(self, buffer: int) -> list[Verdict]:
        offsets, order = self.instance.by_buffer
        return [self.verdict(access) for access in order[offsets[buffer] : offsets[buffer + 1]].tolist()]

    def verdict(self, access: int, *, grouped: bool = True) -> Verdict:
        """Return one access's verdict; without ``grouped``, as if it belonged to no alias group."""
        layer = int(self.plan.access_layer[access])
        if layer:
            saving = -self.saving_s(access, 0)
            return Verdict(
                access=access, layer=layer, reason="fast", saving_s=saving, text=self.fast_text(access, saving)
            )
        savings = sorted(((self.saving_s(access, to), -to) for to in range(1, self.instance.layers)), reverse=True)
        op = int(self.instance.access_op[access])
        useful = [(saving, -to) for saving, to in savings if saving >= LEAST_BENEFIT * self.total_s(op) and saving > 0]
        reason: Reason
        if not useful:
            saving, reason, why = max(savings[0][0], 0.0), "no benefit", self.no_benefit_text(op, savings[0][0])
        else:
            outcomes = [(saving, to, outcome_of(self.instance, self.plan, access, to)) for saving, to in useful]
            saving, to, outcome = next((one for one in outcomes if one[2].reason == "open"), outcomes[0])
            reason, why = outcome.reason, self.outcome_text(access, to, outcome)
            for _, other, tried in outcomes if reason != "open" else ():
                if other != to:
                    why += f"; in {self.layer(other)}, {tried.reason}: {self.outcome_text(access, other, tried)}"
            if reason == "open" and outcome.way is not None and grouped and (others := self.others(outcome.way)):
                reason, why = "alias group", self.group_text(others)
            why += f". Fast, it would save {seconds_text(saving)}"
        text = f"{self.subject(access)} {self.layer(0)}: {reason}: {why}"
        return Verdict(access=access, layer=0, reason=reason, saving_s=saving, text=text)

    def saving_s(self, access: int, layer: int) -> float:
        """Return what the program saves when one access alone changes its layer; negative when it loses."""
        layers: I8 = self.plan.access_layer.copy()
        layers[access] = layer
        op = int(self.instance.access_op[access])
        assert self.instance.trips is not None
        changed: F64 = op_latency_s(self.instance, layers)
        return float(self.instance.trips[op] * (self.latency[op] - changed[op]))

    def total_s(self, op: int) -> float:
        assert self.instance.trips is not None
        return float(self.instance.trips[op] * self.latency[op])

    def others(self, way: Way) -> list[int]:
        """Return accesses that share alias groups with those that a way moves, and do not move along."""
        group = self.instance.access_group
        assert group is not None
        shared = np.isin(group, group[list(way.accesses)]) & (group >= 0)
        shared[list(way.accesses)] = False
        return np.flatnonzero(shared).tolist()

    def op(self, number: int) -> str:
        if not 0 <= number < self.instance.ops:
            return "the end" if number > 0 else "the start"
        label = self.instance.op_labels[number]
        return f"op {number}" if label == str(number) else f"op {number} ({label})"

    def layer(self, number: int) -> str:
        return self.instance.memory.layers[number].name

    def subject(self, access: int) -> str:
        verb = "writes to" if self.instance.access_write[access] else "reads from"
        return f"{self.op(int(self.instance.access_op[access]))} {verb}"

    def fast_text(self, access: int, saving: float) -> str:
        buffer, op = int(self.instance.access_buffer[access]), int(self.instance.access_op[access])
        layer = int(self.plan.access_layer[access])
        rows = self.plan.residences
        around = (rows[:, 0] == buffer) & (rows[:, 1] == layer) & (rows[:, 3] <= op) & (rows[:, 4] >= op)
        where = "where it does not reside"
        if around.any():
            _, _, offset, first, last = rows[np.flatnonzero(around)[0]].tolist()
            how = "produced there by"
            copies = self.plan.copies
            feeds = (
                (copies[:, 0] == buffer) & (copies[:, 1] == 1) & (copies[:, 2] == layer) & (copies[:, 3] == first - 1)
            )
            if feeds.any():
                _, _, _, start, end = copies[np.flatnonzero(feeds)[0]].tolist()
                how = f"copied in behind {_ops(start + 1, end - 1)}, from"
            where = f"at byte {offset}, {how} {self.op(first)} on, until {self.op(last)}"
        return f"{self.subject(access)} {self.layer(layer)}: fast: {where}. It saves {seconds_text(max(saving, 0.0))}"

    def no_benefit_text(self, op: int, saving: float) -> str:
        compute, latency = float(self.instance.compute[op]), float(self.latency[op])
        if compute >= latency * (1 - 1e-12):
            return f"the operation computes for {seconds_text(compute)}, which moving its bytes does not exceed"
        return f"fast, it would save {seconds_text(max(saving, 0.0))} of the operation's {seconds_text(latency)}"

    def outcome_text(self, access: int, layer: int, outcome: Outcome) -> str:
        if outcome.way is None:
            return self.copy_text(access, outcome)
        room = outcome.way.room
        return self.way_text(access, outcome.way) if room.offset is not None else self.room_text(room)

    def room_text(self, room: Room) -> str:
        capacity = self.instance.memory.layers[room.layer].capacity_bytes or 0
        need = f"{bytes_text(room.size)} of {self.layer(room.layer)} from {self.op(room.first)} to {self.op(room.last)}"
        if room.size > capacity:
            return f"it needs {need}, which has {bytes_text(capacity)}"
        names = [f"{self.label(b)} ({bytes_text(self.instance.size[b])})" for b in room.occupants[:_MOST_OCCUPANTS]]
        more = len(room.occupants) - len(names)
        free = capacity - room.in_use
        repacked = (
            f"even repacked, only {bytes_text(free)} are free at {self.op(room.fullest)}"
            if free < room.size
            else f"repacked, it could fit: {bytes_text(free)} are free at {self.op(room.fullest)}, the fullest"
        )
        return (
            f"it needs {need}, the largest chunk free throughout has {bytes_text(room.largest)}, "
            f"{bytes_text(room.missing)} too few; there are {', '.join(names)}{f' and {more} more' if more else ''}; "
            f"{repacked}"
        )

    def copy_text(self, access: int, outcome: Outcome) -> str:
        buffer, (first, last) = int(self.instance.access_buffer[access]), outcome.window
        write = bool(self.instance.access_write[access])
        way = "copied back" if write else "copied in"
        if outcome.reason == "live range":
            after = self.op(first - 1) if first > 0 else "the start"
            return f"between {after} and {self.op(last + 1)} no operation could hide it being {way}" + (
                "" if write else self.definition_text(buffer)
            )
        row = np.array([[buffer, int(not write), 1, 0, 0]])
        window = slice(first, last + 1)
        demand, supply = float(copy_demand_s(self.instance, row)[0]), float(self.bus.supply_s[window].sum())
        used = float(self.bus.served_s[:, window].sum())
        copies = int(self.bus.under_way[int(not write), window].max(initial=0))
        limit = self.instance.memory.outstanding_copies
        but = ""
        if copies >= limit:
            but = f"; up to {copies} copies are under way, {limit} may be"
        elif supply - used >= demand:
            but = "; served in order of start, it would be late or make another late"
        return (
            f"being {way} takes {seconds_text(demand)} of {self.layer(0)}; {_ops(first, last)} can hide "
            f"{seconds_text(supply)}, of which other copies use {seconds_text(used)}{but}"
        ) + ("" if write else self.definition_text(buffer))

    def definition_text(self, buffer: int) -> str:
        """Return why a buffer defined in the slow layer does not stay in a fast one from its definition on."""
        writes = self.instance.access_write & (self.instance.access_buffer == buffer) & (self.plan.access_layer == 0)
        if not writes.any():
            return ""
        access = int(np.flatnonzero(writes)[0])
        outcomes = [(to, outcome_of(self.instance, self.plan, access, to)) for to in range(1, self.instance.layers)]
        to, outcome = next((one for one in outcomes if one[1].reason == "open"), outcomes[0])
        by = f"; produced in {self.layer(to)} by {self.op(int(self.instance.access_op[access]))} instead"
        if outcome.reason == "open":
            return f"{by}, it could stay"
        return f"{by}, {outcome.reason}: {self.outcome_text(access, to, outcome)}"

    def way_text(self, access: int, way: Way) -> str:
        place = f"byte {way.room.offset} of {self.layer(way.room.layer)} from {self.op(way.room.first)} on"
        also = f" with {len(way.accesses) - 1} later accesses" if len(way.accesses) > 1 else ""
        how = {
            "stay": f"it resides at {place}",
            "extend": f"it could stay at {place}",
            "prefetch": f"it could be copied to {place}",
            "produce": f"it could be produced at {place}{also}",
        }[way.kind]
        return f"nothing prevents it: {how}"

    def group_text(self, others: list[int]) -> str:
        verdicts = [self.verdict(access, grouped=False) for access in others]
        held = next((verdict for verdict in verdicts if verdict.reason not in ("fast", "open")), verdicts[0])
        buffer = self.label(int(self.instance.access_buffer[held.access]))
        count = f"{len(others)} more access{'es' if len(others) > 1 else ''}"
        return f"alone it could be fast, but {count} must share layer and offset; of {buffer}, {held.text}"

    def label(self, buffer: int) -> str:
        return self.instance.buffer_labels[buffer]


def _ops(first: int, last: int) -> str:
    return f"op {first}" if first == last else f"ops {first} to {last}"


def _heading(instance: MemoryMapInstance, buffer: int) -> str:
    defined = int(instance.definition[buffer])
    kind = f"defined by op {defined}" if defined >= 0 else "parameter or input"
    kind += ", output of the program" if instance.output[buffer] else ""
    offsets, _ = instance.by_buffer
    accesses = int(offsets[buffer + 1] - offsets[buffer])
    return f"{instance.buffer_labels[buffer]}: {bytes_text(instance.size[buffer])}, {kind}, accesses: {accesses}"


def _plan_summary(instance: MemoryMapInstance, plan: MemoryPlan) -> list[str]:
    explainer = _Explainer(instance, plan)
    slow, mapped = slow_latency_s(instance), program_latency_s(instance, plan.access_layer)
    by_reason: dict[Reason, list[Verdict]] = defaultdict(list)
    lost: dict[int, list[Verdict]] = defaultdict(list)
    for access in range(instance.accesses):
        verdict = explainer.verdict(access)
        by_reason[verdict.reason].append(verdict)
        if verdict.reason not in ("fast", "no benefit"):
            lost[int(instance.access_buffer[access])].append(verdict)
    share = 100 * mapped / slow if slow else 100.0
    lines = [f"latency {seconds_text(mapped)}, {share:.4g} % of {seconds_text(slow)} without fast memory"]
    assert instance.access_bytes is not None
    for reason, verdicts in sorted(by_reason.items(), key=lambda item: -len(item[1])):
        moved = int(instance.access_bytes[[verdict.access for verdict in verdicts]].sum())
        saving = math.fsum(verdict.saving_s for verdict in verdicts)
        effect = "each alone saves" if reason == "fast" else "each alone would save"
        lines.append(
            f"{reason}: {len(verdicts)} accesses of {bytes_text(moved)}, {effect} {seconds_text(saving)} in sum"
        )
    ranked = sorted(lost.items(), key=lambda item: -math.fsum(v.saving_s for v in item[1]))
    for buffer, verdicts in ranked[:_MOST_BUFFERS]:
        saving = math.fsum(verdict.saving_s for verdict in verdicts)
        reasons = ", ".join(dict.fromkeys(verdict.reason for verdict in verdicts))
        size = bytes_text(instance.size[buffer])
        label = instance.buffer_labels[buffer]
        lines.append(f"buffer {label} ({size}) would save {seconds_text(saving)}: {reasons}")
    if len(ranked) > _MOST_BUFFERS:
        lines.append(f"and {len(ranked) - _MOST_BUFFERS} more buffers")
    return lines


def _packing_summary(instance: OffsetPackingInstance, packing: Packing) -> list[str]:
    ends = packing.offset + instance.size
    peak, least = int(ends.max()), max_live(instance)
    at_peak = np.flatnonzero(ends == peak)
    limit = "" if instance.capacity is None else f", capacity {bytes_text(instance.capacity)}"
    lines = [f"peak {bytes_text(peak)}, {peak / least:.4f} times the most bytes live at once{limit}"]
    lines += _packing_of_buffer(instance, packing, int(at_peak[np.argmax(instance.size[at_peak])]))
    if len(at_peak) > 1:
        lines.append(f"and {len(at_peak) - 1} more buffers reach the peak")
    return lines


def _packing_of_buffer(instance: OffsetPackingInstance, packing: Packing, buffer: int) -> list[str]:
    """Return where a buffer is, what it stands on, and how low it could be among the others as they are."""
    start, end, low, high, owner = instance.live
    own, base = owner == buffer, packing.offset
    forbidden = []
    for s, e, mine_low, mine_high in zip(start[own], end[own], low[own], high[own], strict=True):
        meets = ~own & (start < e) & (end > s)
        bottom, top = base[owner[meets]] + low[meets], base[owner[meets]] + high[meets]
        forbidden += [
            *zip((bottom - mine_high).tolist(), (top - mine_low).tolist(), owner[meets].tolist(), strict=True)
        ]
    assert instance.alignment is not None and instance.fixed_offset is not None
    step, offset = int(instance.alignment[buffer]), int(base[buffer])
    lowest = 0
    for bottom, top, _ in sorted(forbidden):
        if bottom < lowest < top:
            lowest = -(-top // step) * step
    below = sorted({instance.labels[other] for _, top, other in forbidden if offset - step < top <= offset and top > 0})
    lines = [
        f"{instance.labels[buffer]}: {bytes_text(instance.size[buffer])} at byte {offset}, live from "
        f"{instance.lower[buffer]} to {instance.upper[buffer]}"
    ]
    if below:
        more = f" and {len(below) - 4} more" if len(below) > 4 else ""
        lines.append(f"it stands on {', '.join(below[:4])}{more}")
    if instance.fixed_offset[buffer] >= 0:
        lines.append("its offset is given")
    elif lowest < offset:
        lines.append(f"with all others as they are, it could move down to byte {lowest}")
    else:
        lines.append("with all others as they are, it cannot be lower")
    return lines
