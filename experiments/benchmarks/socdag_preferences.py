"""Which compromises between latency, energy and cost a scheduler offers: fronts and hypervolumes.

Run by hand: ``python -m schedrl.experiments.benchmarks.socdag_preferences`` (``--quick`` for a look in seconds).
Schedulers that read the instance's preference run once for each weight vector of a grid; the others, which know no
preference, once. On agentic workflows all three objectives count; on the 16-device chip with its operating points
latency and energy do. Objectives are means over the instances, in units of HEFT's, and the hypervolume is that
dominated within twice HEFT's values, so a point outside adds nothing. Every schedule passes the checker.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from schedrl.arrays import F64, Bool
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.soc import stream_16pe
from schedrl.envs.socdag.structured import canonical
from schedrl.envs.socdag.workflows import agentic
from schedrl.experiments.measurement import checked_objectives, find_schedulers, write_table
from schedrl.plotting.lines import Line, LineChart
from schedrl.plotting.panels import PanelChart, save_panels
from schedrl.schedulers import Scheduler

__all__ = ["FIXED", "STEERED", "front", "hypervolume", "instances_of", "main", "measure", "weight_grid"]

STEERED = ("socdag/weighted-heft", "socdag/ppo-preference")
# Trained on single workflows of devices with one operating point each.
_ONLY_AGENTIC = ("socdag/ppo-preference",)
HEFT = "socdag/heft"
FIXED = (HEFT, "socdag/edp-heft", "socdag/edp-heft-relative", "socdag/etf-finish-online")
_OBJECTIVES = {"agentic": ("latency", "energy_j", "cost_usd"), "dvfs": ("latency", "energy_j")}
_REFERENCE = 2.0  # in units of HEFT
_SEED = 20261003


def instances_of(kind: str, count: int, jobs: int) -> list[SocDagInstance]:
    """Return unseen instances: ``agentic`` workflows, or ``dvfs`` for streams on the chip with operating points."""
    rngs = [np.random.default_rng((_SEED, number)) for number in range(count)]
    if kind == "agentic":
        return [agentic(rng, jobs=jobs, noise_sigma=0.0) for rng in rngs]
    return [stream_16pe(rng, jobs=jobs, scale=300.0, mix=".4/.3/.3") for rng in rngs]


def weight_grid(objectives: int, steps: int) -> F64:
    """Return (W, 3) weights of latency, energy and cost that are multiples of ``1 / steps`` and sum to 1.

    With two objectives cost weighs nothing.
    """
    grid = [
        (first, second, steps - first - second)
        for first in range(steps, -1, -1)
        for second in range(steps - first, -1, -1)
        if objectives == 3 or first + second == steps
    ]
    return np.array(grid) / steps


def front(points: F64) -> Bool:
    """Return (n,) which of the points (n, k), all minimised, no other one dominates; of equal points the first."""
    kept = np.ones(len(points), dtype=np.bool_)
    for k, point in enumerate(points):
        no_worse, better = (points <= point).all(axis=1), (points < point).any(axis=1)
        equal_before = (points[:k] == point).all(axis=1).any()
        kept[k] = not (no_worse & better).any() and not equal_before
    return kept


def hypervolume(points: F64, reference: F64) -> float:
    """Return the volume between points (n, k) and a reference (k,) that they dominate, exactly; all minimised.

    The last objective is cut into slices at the points' values, each of the same volume in the others; one objective
    is a length. Quadratic in n for two objectives and cubic for three, which fronts of a few hundred points allow.
    """
    inside = points[(points < reference).all(axis=1)]
    if not len(inside):
        return 0.0
    if inside.shape[1] == 1:
        return float(reference[0] - inside.min())
    levels = np.unique(inside[:, -1])
    heights = np.diff(np.append(levels, reference[-1]))
    return sum(
        float(height) * hypervolume(inside[inside[:, -1] <= level, :-1], reference[:-1])
        for level, height in zip(levels, heights, strict=True)
    )


def measure(scheduler: Scheduler, instances: Sequence[SocDagInstance], weights: F64, names: Sequence[str]) -> F64:
    """Return (W, k) mean objectives by weight vector."""
    points = []
    for preference in weights:
        steered = [dataclasses.replace(instance, preference=preference) for instance in instances]
        values = [checked_objectives(scheduler, instance) for instance in steered]
        points.append([np.mean([value[name] for value in values]) for name in names])
    return np.array(points)


def _rows(kind: str, name: str, weights: F64 | None, points: F64, unit: F64) -> list[dict[str, object]]:
    volume = hypervolume(points / unit, np.full(len(unit), _REFERENCE))
    on_front = front(points)
    labels = _OBJECTIVES[kind]
    rows: list[dict[str, object]] = []
    for k, point in enumerate(points):
        row: dict[str, object] = {"instances": kind, "scheduler": name}
        row |= {
            f"weight_{label}": None if weights is None else float(weights[k, column])
            for column, label in enumerate(_OBJECTIVES["agentic"])
        }
        row |= {
            label: float(point[labels.index(label)]) if label in labels else None for label in _OBJECTIVES["agentic"]
        }
        rows.append({**row, "on_front": bool(on_front[k]), "hypervolume": volume})
    return rows


def _lines(found: Mapping[str, F64], unit: F64) -> tuple[Line, ...]:
    """Return the fronts in latency and energy; a single point is drawn as a short stroke."""
    lines = []
    for name, points in found.items():
        relative = points[:, :2] / unit[:2]
        relative = relative[front(relative)]
        relative = relative[np.argsort(relative[:, 0])]
        if len(relative) == 1:
            relative = np.repeat(relative, 2, axis=0) + np.array([[-0.01, 0.0], [0.01, 0.0]])
        lines.append(Line(label=name, x=relative[:, 0], y=relative[:, 1]))
    return tuple(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write CSV and picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("socdag_preferences.csv"))
    parser.add_argument("--quick", action="store_true", help="one small instance of each kind, a coarse grid")
    parser.add_argument("--instances", type=int, default=10)
    parser.add_argument("--steps", type=int, default=10, help="of the grid of weights")
    parser.add_argument("--steered", default=",".join(STEERED), help="schedulers that read the preference")
    options = parser.parse_args(arguments)
    count, steps, jobs = (1, 4, 3) if options.quick else (options.instances, options.steps, 0)
    steered = options.steered.split(",")
    schedulers, notes = find_schedulers([*FIXED, *steered], canonical())
    rows: list[dict[str, object]] = []
    panels = []
    for kind, names in _OBJECTIVES.items():
        instances = instances_of(kind, count, {"agentic": 1, "dvfs": jobs or 40}[kind])
        grid = weight_grid(len(names), steps)
        found = {
            name: measure(scheduler, instances, grid if name in steered else grid[:1], names)
            for name, scheduler in schedulers.items()
            if kind == "agentic" or name not in _ONLY_AGENTIC
        }
        unit = found[HEFT][0]
        for name, points in found.items():
            rows += _rows(kind, name, grid if name in steered else None, points, unit)
            shown = f"{int(front(points).sum())} on the front, hypervolume {rows[-1]['hypervolume']:.4f}"
            print(f"{kind:9s}{name:28s}{shown}", flush=True)
        panels.append(
            LineChart(title=kind, x_label="latency / HEFT's", y_label="energy / HEFT's", lines=_lines(found, unit))
        )
    write_table(options.out, rows)
    save_panels(PanelChart(title="Fronts", panels=tuple(panels)), options.out.with_suffix(".svg"))
    print("\n".join([*notes, f"wrote {options.out}"]))


if __name__ == "__main__":
    main()
