"""Pictures of memory plans and packings: memory maps, the bus's use by copies, and where latency is saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from schedrl.arrays import F64, I32, I64
from schedrl.envs.memmap.bus_use import bus_use
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import fast_bound_s, op_latency_s, program_latency_s, slow_latency_s
from schedrl.envs.memmap.packing import OffsetPackingInstance, Packing, max_live
from schedrl.envs.memmap.plan import MemoryPlan
from schedrl.envs.memmap.units import byte_unit, bytes_text, seconds_text, time_unit
from schedrl.errors import SolutionError
from schedrl.plotting.lines import Line, LineChart
from schedrl.plotting.memory_map import Level, MapPanel, MemoryChart, save_map
from schedrl.plotting.panels import PanelChart, save_panels

__all__ = [
    "KINDS",
    "buffer_kinds",
    "latency_panels",
    "latency_waterfall",
    "memory_map",
    "memory_map_chart",
    "packing_chart",
    "supply_curve",
    "supply_panels",
]

KINDS = ("parameter or input", "intermediate", "output of the program")
_SIZES = ("over 1/4 of the peak", "over 1/16", "over 1/64", "smaller")
_COPIES = ("", "being copied in", "being copied back")


def memory_map(instance: MemoryMapInstance | OffsetPackingInstance, solution: MemoryPlan | Packing, path: Path) -> None:
    """Write a map of time and offset as ``.png`` (needs matplotlib), ``.svg`` or zooming ``.html``, by the suffix.

    Raises:
        SolutionError: the solution does not belong to the instance.
        ConfigError: another suffix.
    """
    if isinstance(instance, OffsetPackingInstance):
        if not isinstance(solution, Packing):
            raise SolutionError(f"{instance.name}: packs offsets, expected a packing")
        save_map(packing_chart(instance, solution), path)
    else:
        save_map(memory_map_chart(instance, _plan_of(instance, solution)), path)


def memory_map_chart(instance: MemoryMapInstance, plan: MemoryPlan) -> MemoryChart:
    """Return the map of a plan: a panel per fast layer, a rectangle per residence, the time of copies hatched.

    Time counts operations, with the time that has passed below; colours tell the kinds of ``buffer_kinds``.

    Raises:
        SolutionError: the plan has accesses, buffers, layers or operations that the instance has not.
    """
    plan = _plan_of(instance, plan)
    clock = np.concatenate([[0.0], np.cumsum(_spent(instance, op_latency_s(instance, plan.access_layer)))])
    seconds, unit = time_unit(float(clock[-1]))
    capacities = [layer.capacity_bytes or 1 for layer in instance.memory.layers[1:]]
    bytes_per_unit, name = byte_unit(max(capacities)) if len(capacities) == 1 else byte_unit(min(capacities))
    return MemoryChart(
        title=_plan_title(instance, plan),
        panels=tuple(_layer_panel(instance, plan, k, bytes_per_unit) for k in range(1, instance.layers)),
        groups=KINDS,
        hatches=_COPIES,
        span=(0.0, float(instance.ops)),
        time_label="operation",
        offset_label=f"offset, {name}",
        clock=clock / seconds,
        clock_label=f"time passed, {unit}",
    )


def packing_chart(instance: OffsetPackingInstance, packing: Packing) -> MemoryChart:
    """Return the map of a packing: rectangles of live bytes by size, with peak, capacity and bound as lines.

    Raises:
        SolutionError: another number of offsets than buffers.
    """
    if len(packing.offset) != instance.buffers:
        raise SolutionError(f"{instance.name}: {len(packing.offset)} offsets, expected {instance.buffers}")
    start, end, low, high, owner = instance.live
    peak, least = int((packing.offset + instance.size).max()), max_live(instance)
    factor, unit = byte_unit(peak)
    group = np.searchsorted([4, 16, 64], peak / instance.size[owner], side="left").astype(np.int32)
    lives = zip(instance.lower.tolist(), instance.upper.tolist(), strict=True)
    notes = [
        f"{label} · {bytes_text(size)} at byte {offset} · live from {lower} to {upper}"
        for label, size, offset, (lower, upper) in zip(
            instance.labels, instance.size.tolist(), packing.offset.tolist(), lives, strict=True
        )
    ]
    marks = {"peak": peak, "most bytes live at once": least}
    if instance.capacity is not None and instance.capacity <= 1.5 * peak:
        marks["capacity"] = instance.capacity
    panel = MapPanel(
        title="",
        start=start.astype(np.float64),
        length=(end - start).astype(np.float64),
        low=(packing.offset[owner] + low) / factor,
        height=(high - low) / factor,
        group=group,
        hatch=np.zeros(len(owner), dtype=np.int32),
        label=tuple(instance.labels[b] for b in owner.tolist()),
        note=tuple(notes[b] for b in owner.tolist()),
        top=1.06 * max(marks.values()) / factor,
        levels=_levels(marks, factor),
    )
    return MemoryChart(
        title=f"{instance.name}: peak {bytes_text(peak)}, {100 * (peak / least - 1):.3g} % above the most live bytes",
        panels=(panel,),
        groups=_SIZES,
        span=(float(start.min()), float(end.max())),
        offset_label=f"offset, {unit}",
    )


def supply_curve(instance: MemoryMapInstance, plan: MemoryPlan, path: Path) -> None:
    """Write how copies use the slow layer's bus as ``.png`` (needs matplotlib), ``.svg`` or ``.html``.

    Raises:
        SolutionError: the plan does not belong to the instance.
        ConfigError: another suffix.
    """
    save_panels(supply_panels(instance, plan), path)


def supply_panels(instance: MemoryMapInstance, plan: MemoryPlan) -> PanelChart:
    """Return what each operation can hide and copies use of it, the copying that waits, and the copies under way.

    Raises:
        SolutionError: the plan does not belong to the instance.
    """
    plan = _plan_of(instance, plan)
    use = bus_use(instance, plan)
    spare = np.maximum(use.supply_s - use.served_s.sum(axis=0), 0.0)
    seconds, unit = time_unit(float(use.supply_s.max()))
    total, used = float(use.supply_s.sum()), float(use.served_s.sum())
    share = 100 * used / total if total else 0.0
    title = f"{instance.name}: copies use {seconds_text(used)} of the {seconds_text(total)} ({share:.3g} %)"
    supply = (("copies in", use.served_s[1]), ("copies back", use.served_s[0]), ("spare", spare))
    waiting_s, waiting_unit = time_unit(float(use.waiting_s.sum(axis=0).max()))
    waiting = (("to be copied in", use.waiting_s[1]), ("to be copied back", use.waiting_s[0]))
    under_way = (("in", use.under_way[1]), ("back", use.under_way[0]))
    limit = instance.memory.outstanding_copies
    panels = (
        _by_operation(
            title + " that operations hide", f"per operation, {unit}", supply, seconds, stacked=True, stepped=True
        ),
        _by_operation(
            "Copying begun and not yet done",
            f"bus time, {waiting_unit}",
            waiting,
            waiting_s,
            stacked=True,
            stepped=False,
        ),
        _by_operation(
            f"Copies under way, at most {limit} each way", "copies", under_way, 1.0, stacked=False, stepped=True
        ),
    )
    return PanelChart(title=title, panels=panels)


def latency_waterfall(instance: MemoryMapInstance, plan: MemoryPlan, path: Path) -> None:
    """Write where a plan saves latency as ``.png`` (needs matplotlib), ``.svg`` or ``.html``.

    Raises:
        SolutionError: the plan does not belong to the instance.
        ConfigError: another suffix.
    """
    save_panels(latency_panels(instance, plan), path)


def latency_panels(instance: MemoryMapInstance, plan: MemoryPlan) -> PanelChart:
    """Return the latency of each operation split into computing, memory and what is saved, and the sums so far.

    The first panel's areas add up to the latency with everything in slow memory, where the plan slows nothing down.

    Raises:
        SolutionError: the plan does not belong to the instance.
    """
    plan = _plan_of(instance, plan)
    slow = _spent(instance, op_latency_s(instance, np.zeros(instance.accesses, dtype=np.int8)))
    mapped, floor = _spent(instance, op_latency_s(instance, plan.access_layer)), _spent(instance, instance.compute)
    parts = (
        ("computing", floor),
        ("more for memory", np.maximum(mapped - floor, 0.0)),
        ("saved by the plan", np.maximum(slow - mapped, 0.0)),
    )
    seconds, unit = time_unit(float(slow.max()))
    sums_s, sums_unit = time_unit(float(slow.sum()))
    sums = tuple(
        (f"{label}: {seconds_text(float(values.sum()))}", np.concatenate([[0.0], np.cumsum(values)]))
        for label, values in (("all slow", slow), ("as planned", mapped), ("computing", floor))
    )
    saving = f"saved: {seconds_text(float((slow - mapped).sum()))}"
    most = f"{seconds_text(slow_latency_s(instance) - fast_bound_s(instance))}"
    saved = ((saving, np.concatenate([[0.0], np.cumsum(slow - mapped)])),)
    title = _plan_title(instance, plan)
    panels = (
        _by_operation(title, f"per operation, {unit}", parts, seconds, stacked=True, stepped=True),
        _by_operation("Latency so far", f"latency, {sums_unit}", sums, sums_s, stacked=False, stepped=False),
        _by_operation(
            f"Saved so far; {most} with everything fast",
            f"saving, {sums_unit}",
            saved,
            sums_s,
            stacked=False,
            stepped=False,
        ),
    )
    return PanelChart(title=title, panels=panels)


def buffer_kinds(instance: MemoryMapInstance) -> I32:
    """Return (N,) index into ``KINDS`` of each buffer; what is input and output at once counts as output."""
    kind = np.where(instance.output, 2, np.where(instance.definition < 0, 0, 1))
    return kind.astype(np.int32)


def _plan_of(instance: MemoryMapInstance, plan: MemoryPlan | Packing) -> MemoryPlan:
    if not isinstance(plan, MemoryPlan):
        raise SolutionError(f"{instance.name}: maps a program, expected a memory plan")
    if len(plan.access_layer) != instance.accesses:
        raise SolutionError(f"{instance.name}: the plan has {len(plan.access_layer)} accesses, not {instance.accesses}")
    for name, table, layer in (("residences", plan.residences, 1), ("copies", plan.copies, 2)):
        for what, column, low, high in (
            ("buffer", 0, 0, instance.buffers - 1),
            ("layer", layer, 1, instance.layers - 1),
            ("operation", 3, -1, instance.ops - 1),
            ("operation", 4, 0, instance.ops),
        ):
            if len(table) and not low <= int(table[:, column].min()) <= int(table[:, column].max()) <= high:
                raise SolutionError(f"{instance.name}: {name}: {what} outside {low} to {high}")
    return plan


def _plan_title(instance: MemoryMapInstance, plan: MemoryPlan) -> str:
    slow, mapped = slow_latency_s(instance), program_latency_s(instance, plan.access_layer)
    share = f", {100 * mapped / slow:.3g} % of {seconds_text(slow)} all slow" if slow else ""
    return f"{instance.name}: {seconds_text(mapped)}{share}"


def _spent(instance: MemoryMapInstance, per_trip: F64) -> F64:
    assert instance.trips is not None
    return np.asarray(instance.trips * per_trip, dtype=np.float64)


def _layer_panel(instance: MemoryMapInstance, plan: MemoryPlan, layer: int, factor: float) -> MapPanel:
    """Return the residences of a layer, and over them the time of the copies that feed or drain them."""
    place = instance.memory.layers[layer]
    rows = plan.residences[plan.residences[:, 1] == layer]
    ordered = rows[np.argsort(rows[:, 3], kind="stable")]
    kinds, labels = buffer_kinds(instance), instance.buffer_labels
    boxes: list[tuple[int, int, int, int, int]] = []  # buffer, offset, begin, end, hatch
    notes: list[str] = []
    for buffer, _, offset, first, last in ordered.tolist():
        boxes.append((buffer, offset, first, last + 1, 0))
        size = bytes_text(instance.size[buffer])
        notes.append(f"{labels[buffer]} · {size} at byte {offset} · operations {first} to {last}")
    copies = plan.copies[plan.copies[:, 2] == layer]
    for buffer, inward, _, start, end in copies.tolist():
        around = ordered[(ordered[:, 0] == buffer) & (ordered[:, 3] <= start + 1) & (ordered[:, 4] >= end - 1)]
        for offset in around[-1:, 2].tolist():
            boxes.append((buffer, offset, start + 1, end, 1 if inward else 2))
            way = "copied in" if inward else "copied back"
            notes.append(f"{labels[buffer]} · {way} behind operations {start + 1} to {end - 1}")
    table = np.array(boxes, dtype=np.int64).reshape(-1, 5)
    peak = int((rows[:, 2] + instance.size[rows[:, 0]]).max(initial=0))
    capacity = place.capacity_bytes or 1
    return MapPanel(
        title=f"{place.name}, {bytes_text(capacity)}: {len(rows)} residences up to {bytes_text(peak)}, "
        f"{len(copies)} copies",
        start=table[:, 2].astype(np.float64),
        length=(table[:, 3] - table[:, 2]).astype(np.float64),
        low=table[:, 1] / factor,
        height=instance.size[table[:, 0]] / factor,
        group=kinds[table[:, 0]],
        hatch=table[:, 4].astype(np.int32),
        label=tuple(labels[b] if not hatch else "" for b, hatch in zip(table[:, 0], table[:, 4], strict=True)),
        note=tuple(notes),
        top=capacity / factor,
    )


def _levels(marks: dict[str, int], factor: float) -> tuple[Level, ...]:
    """Return a line per value; names of equal values share one."""
    names: dict[int, list[str]] = {}
    for name, value in marks.items():
        names.setdefault(value, []).append(name)
    return tuple(
        Level(value=value / factor, label=f"{' = '.join(words)} {bytes_text(value)}") for value, words in names.items()
    )


def _by_operation(
    title: str, y_label: str, values: tuple[tuple[str, F64 | I64], ...], unit: float, *, stacked: bool, stepped: bool
) -> LineChart:
    """Return curves over operations: stepped ones have a value per operation, others one before each and at the end."""
    lines = []
    for label, y in values:
        held = np.append(y, y[-1]) if stepped else y
        lines.append(Line(label=label, x=np.arange(len(held), dtype=np.float64), y=held / unit))
    return LineChart(
        title=title, x_label="operation", y_label=y_label, lines=tuple(lines), stacked=stacked, stepped=stepped
    )
