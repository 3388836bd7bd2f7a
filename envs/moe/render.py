"""Pictures of expert placements: device loads per layer, experts on devices, traffic, and migration over time.

Those of one placement compare it with the one before: the instance's initial placement, or else the trivial one that
engines start with (slot p holds expert p modulo their number).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.solution import (
    ExpertPlan,
    check_plan,
    device_loads,
    layer_times,
    migration_times,
    path_traffic,
)
from schedrl.errors import SolutionError
from schedrl.plotting.heatmap import Heatmap, HeatmapChart, save_heatmap
from schedrl.plotting.lines import Line, LineChart
from schedrl.plotting.panels import PanelChart, save_panels

__all__ = [
    "expert_chart",
    "expert_heatmap",
    "load_chart",
    "load_heatmap",
    "migration_over_time",
    "migration_panels",
    "traffic_chart",
    "traffic_matrix",
]

# More rows than these cannot be told apart, and the lightest experts make no peaks.
_MOST_EXPERTS = 48


def load_heatmap(instance: ExpertPlacementInstance, plan: ExpertPlan, path: Path) -> None:
    """Write every device's load in every layer, before and after, as ``.png`` (needs matplotlib), ``.svg``, ``.html``.

    Raises:
        SolutionError: the plan is not valid for the instance.
        ConfigError: another suffix.
    """
    save_heatmap(load_chart(instance, plan), path)


def load_chart(instance: ExpertPlacementInstance, plan: ExpertPlan) -> HeatmapChart:
    """Return device x layer loads relative to the layer's mean over devices, all scored windows together.

    Raises:
        SolutionError: the plan is not valid for the instance.
    """
    placements = _placements(instance, plan)
    before = np.broadcast_to(instance.start, placements.shape)
    panels = []
    for name, chosen in ((_before(instance), before), ("as planned", placements)):
        loads = _relative_loads(instance, chosen)
        panels.append(Heatmap(title=f"{name}: mean over layers of the largest {loads.max(axis=1).mean():.3f}",
                              values=loads))  # fmt: skip
    return HeatmapChart(
        title=f"{instance.name}: load of devices",
        panels=tuple(panels),
        x_label="device",
        y_label="layer",
        value_label="tokens, relative to the layer's mean",
        centre=1.0,
        breaks=_node_breaks(instance),
    )


def expert_heatmap(instance: ExpertPlacementInstance, plan: ExpertPlan, path: Path) -> None:
    """Write which devices serve which experts in the layer of ``expert_chart``, as ``load_heatmap`` does.

    Raises:
        SolutionError: the plan is not valid for the instance.
        ConfigError: another suffix.
    """
    save_heatmap(expert_chart(instance, plan), path)


def expert_chart(instance: ExpertPlacementInstance, plan: ExpertPlan) -> HeatmapChart:
    """Return tokens of the 48 heaviest experts on each device, in the layer that was least balanced before.

    Values are means over the scored windows, relative to the mean load of a device; grey cells hold no replica.

    Raises:
        SolutionError: the plan is not valid for the instance.
    """
    placements = _placements(instance, plan)
    before = np.broadcast_to(instance.start, placements.shape)
    layer = int(_relative_loads(instance, before).max(axis=1).argmax())
    order = np.argsort(-instance.scored[:, layer].sum(axis=0), kind="stable")[:_MOST_EXPERTS]
    which = "experts" if len(order) == instance.experts else f"the {len(order)} heaviest experts"
    panels = tuple(
        Heatmap(title=name, values=_expert_shares(instance, chosen[:, layer], layer)[order])
        for name, chosen in ((_before(instance), before), ("as planned", placements))
    )
    return HeatmapChart(
        title=f"{instance.name}: {which} on devices in layer {layer}",
        panels=panels,
        x_label="device",
        y_label="expert, heaviest on top",
        value_label="tokens, relative to a device's mean",
        rows=tuple(map(str, order.tolist())),
        gamma=0.5,
        breaks=_node_breaks(instance),
    )


def traffic_matrix(instance: ExpertPlacementInstance, plan: ExpertPlan, path: Path) -> None:
    """Write the tokens between all pairs of devices, before and after, as ``load_heatmap`` does.

    Raises:
        SolutionError: the plan is not valid for the instance.
        ConfigError: another suffix.
    """
    save_heatmap(traffic_chart(instance, plan), path)


def traffic_chart(instance: ExpertPlacementInstance, plan: ExpertPlan) -> HeatmapChart:
    """Return expected tokens per forward pass from each device to each other in all dispatches.

    With tokens at home, every device sends alike; a token goes once per device where exchanges deduplicate, and the
    detour over a first device of the node is not drawn. What stays on its device is grey.

    Raises:
        SolutionError: the plan is not valid for the instance.
    """
    placements = _placements(instance, plan)
    before = np.broadcast_to(instance.start, placements.shape)
    node_of = instance.cluster.node_of
    panels = []
    for name, chosen in ((_before(instance), before), ("as planned", placements)):
        pairs = zip(instance.scored, chosen, strict=True)
        matrix = np.mean([_traffic(instance, counts, placement) for counts, placement in pairs], axis=0)
        crossing = matrix[node_of[:, None] != node_of].sum() / max(matrix.sum(), 1e-300)
        np.fill_diagonal(matrix, 0.0)
        busiest = matrix.sum(axis=0).max() * instance.devices / max(matrix.sum(), 1e-300)
        np.fill_diagonal(matrix, np.nan)
        title = f"{name}: {100 * crossing:.3g} % cross nodes, busiest gets {busiest:.3g} x mean"
        panels.append(Heatmap(title=title, values=matrix))
    return HeatmapChart(
        title=f"{instance.name}: traffic between devices",
        panels=tuple(panels),
        x_label="to device",
        y_label="from device",
        value_label="tokens per forward pass",
        breaks=_node_breaks(instance),
    )


def migration_over_time(instance: ExpertPlacementInstance, plan: ExpertPlan, path: Path) -> None:
    """Write moved bytes and the time of a forward pass per scored window, as ``load_heatmap`` does.

    Raises:
        SolutionError: the plan is not valid for the instance.
        ConfigError: another suffix.
    """
    save_panels(migration_panels(instance, plan), path)


def migration_panels(instance: ExpertPlacementInstance, plan: ExpertPlan) -> PanelChart:
    """Return what each scored window's change of placement moves, and its forward passes against the first placement's.

    Raises:
        SolutionError: the plan is not valid for the instance.
    """
    placements = _placements(instance, plan)
    before = instance.start
    first = placements[0] if instance.initial is None else instance.initial
    moves = [migration_times(instance, *pair) for pair in zip([first, *placements[:-1]], placements, strict=True)]
    moved = np.array([size for _, size in moves]) / 1e9
    spent = [
        np.array([layer_times(instance, counts, placement)[0].sum() for counts, placement in pairs])
        for pairs in (
            zip(instance.scored, placements, strict=True),
            zip(instance.scored, np.broadcast_to(before, placements.shape), strict=True),
        )
    ]
    paused = sum(seconds for seconds, _ in moves)
    title = f"{instance.name}: {moved.sum():.4g} GB moved in {paused:.3g} s"
    factor, unit = (1e3, "ms") if spent[1].max() >= 1e-3 else (1e6, "µs")
    gain = 100 * (1 - float(spent[0].sum() / spent[1].sum())) if spent[1].sum() > 0 else 0.0
    less = "less" if gain >= 0 else "more"
    times = (("as planned", spent[0]), (_before(instance), spent[1]))
    return PanelChart(
        title=title,
        panels=(
            _by_window(title, "moved before the window, GB", (("moved", moved),), floor=True),
            _by_window(
                f"Time of a forward pass, against {_before(instance)}: {abs(gain):.3g} % {less}",
                f"experts and exchanges, {unit}",
                tuple((name, values * factor) for name, values in times),
                floor=False,
            ),
        ),
    )


def _before(instance: ExpertPlacementInstance) -> str:
    return "experts in order" if instance.initial is None else "initial placement"


def _placements(instance: ExpertPlacementInstance, plan: ExpertPlan) -> I32:
    """Return (T, L, P) the placement of each scored window."""
    if found := check_plan(instance, plan):
        raise SolutionError(f"{instance.name}: {found[0]}")
    return np.broadcast_to(plan.experts, (len(instance.scored), *plan.experts.shape[1:]))


def _relative_loads(instance: ExpertPlacementInstance, placements: I32) -> F64:
    pairs = zip(instance.scored, placements, strict=True)
    loads = np.sum([device_loads(instance, counts, placement) for counts, placement in pairs], axis=0)
    means = loads.mean(axis=1, keepdims=True)
    return np.asarray(np.where(means > 0, loads / np.where(means > 0, means, 1.0), 1.0), dtype=np.float64)


def _shares(instance: ExpertPlacementInstance, row: I32) -> F64:
    """Return (E, D) how an expert's tokens divide over the devices in a layer's placement ``row`` (P,)."""
    held = np.zeros((instance.experts, instance.devices))
    np.add.at(held, (row, instance.slot_device), 1.0)
    return np.asarray(held / held.sum(axis=1, keepdims=True), dtype=np.float64)


def _expert_shares(instance: ExpertPlacementInstance, rows: I32, layer: int) -> F64:
    counts = instance.scored[:, layer]
    tokens = np.sum([c[:, None] * _shares(instance, row) for c, row in zip(counts, rows, strict=True)], axis=0)
    held = np.any([_shares(instance, row) > 0 for row in rows], axis=0)
    mean = max(float(counts.sum()) / instance.devices, 1e-300)
    return np.asarray(np.where(held, tokens / mean, np.nan), dtype=np.float64)


def _traffic(instance: ExpertPlacementInstance, counts: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
             placement: I32) -> F64:  # fmt: skip
    """Return (D, D) tokens per forward pass from device to device, those that stay on the diagonal."""
    if instance.timing.residence == "path":
        layers = range(1, instance.layers)
        paths = [path_traffic(instance, counts, placement, layer) for layer in layers]
        together: F64 = np.sum([np.zeros((instance.devices, instance.devices)), *paths], axis=0)
        return together
    visits = np.zeros(instance.devices)
    for layer, row in enumerate(placement):
        replicas = np.bincount(row, minlength=instance.experts)
        tokens = (counts[layer] / instance.iterations / replicas)[row]
        total = counts[layer].sum() / instance.iterations / instance.model.top_k
        for device in range(instance.devices):
            own = tokens[instance.slot_device == device]
            if instance.timing.deduplicate == "none":
                visits[device] += own.sum()
            elif total > 0:
                visits[device] += total * (1.0 - np.prod(1.0 - np.minimum(own / total, 1.0)))
    return np.tile(visits / instance.devices, (instance.devices, 1))


def _node_breaks(instance: ExpertPlacementInstance) -> tuple[int, ...]:
    return tuple((np.flatnonzero(np.diff(instance.cluster.node_of)) + 1).tolist())


def _by_window(title: str, y_label: str, values: tuple[tuple[str, F64], ...], *, floor: bool) -> LineChart:
    """Return steps over scored windows, each as wide as its window; ``floor`` starts the axis at 0."""
    lines = []
    for name, y in values:
        held = np.append(y, y[-1])
        lines.append(Line(label=name, x=np.arange(len(held), dtype=np.float64), y=held))
    top = max(float(line.y.max()) for line in lines)
    return LineChart(
        title=title, x_label="scored window", y_label=y_label, lines=tuple(lines), stepped=True,
        y_range=(0.0, 1.05 * top or 1.0) if floor else None,
    )  # fmt: skip
