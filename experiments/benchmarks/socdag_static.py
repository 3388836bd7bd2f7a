"""How good the static policy is on unseen graphs, beside the list heuristics it has to beat.

Run by hand: ``python -m schedrl.experiments.benchmarks.socdag_static`` (``--quick`` takes 20 of the 200 random
graphs). Writes one row per group and scheduler: graphs of suite ``rgg-large`` by size, devices and communication to
computation ratio, and the tiled factorisations of 8 tiles one by one. Every schedule passes the checker.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schedrl.arrays import F64
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.structured import CCRS, canonical
from schedrl.envs.socdag.suites import SUITES, load_instance
from schedrl.evaluation.statistics import bootstrap, mean, win_tie_loss
from schedrl.experiments.measurement import checked_objectives, find_schedulers, write_table
from schedrl.schedulers import Scheduler

__all__ = ["HEFT", "LOOKAHEAD", "SCHEDULERS", "Graph", "graphs_of", "main", "makespans", "rows_of"]

HEFT, LOOKAHEAD = "socdag/heft", "socdag/lookahead"
SCHEDULERS = (
    HEFT,
    "socdag/heft-append",
    "socdag/peft",
    LOOKAHEAD,
    "socdag/cpop",
    "socdag/dls",
    "socdag/min-min",
    "socdag/sufferage",
    "socdag/mct",
    "socdag/ppo",
    "socdag/ppo-sample",
)
_TILED = ("cholesky-8", "lu-8", "qr-8")
_SIZES = ((20, 46), (47, 73), (74, 100))


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """An instance and the groups of the table it counts in."""

    instance: SocDagInstance
    groups: tuple[str, ...]


def graphs_of(*, quick: bool = False) -> list[Graph]:
    """Return the random graphs of ``rgg-large``, with ``quick`` the first 20, and the tiled ones."""
    random = [load_instance(entry.instance.name) for entry in SUITES["rgg-large"].load()]
    chosen = [Graph(instance=graph, groups=_groups(graph)) for graph in random[: 20 if quick else None]]
    return [*chosen, *(Graph(instance=load_instance(name), groups=(name,)) for name in _TILED)]


def _groups(instance: SocDagInstance) -> tuple[str, ...]:
    low, high = next((low, high) for low, high in _SIZES if low <= instance.tasks <= high)
    return ("all", f"tasks {low}-{high}", f"devices {instance.devices}", f"ccr {_ccr(instance):g}")


def _ccr(instance: SocDagInstance) -> float:
    """Return the ratio that the graph was drawn with: the one nearest to its own, on a logarithmic scale."""
    own = float(instance.flat.edge_bytes.mean() / instance.flat.duration.mean())
    return min(CCRS, key=lambda ccr: abs(np.log(own / ccr)))


def makespans(schedulers: Mapping[str, Scheduler], graphs: Sequence[Graph]) -> dict[str, F64]:
    """Return (G,) makespans by scheduler."""
    return {
        name: np.array([checked_objectives(scheduler, graph.instance)["makespan"] for graph in graphs])
        for name, scheduler in schedulers.items()
    }


def rows_of(graphs: Sequence[Graph], found: Mapping[str, F64]) -> list[dict[str, object]]:
    """Return one row per group and scheduler; ratios are means over graphs, with 95 % intervals over graphs."""
    best_rule = np.min([values for name, values in found.items() if "/ppo" not in name], axis=0)
    rows: list[dict[str, object]] = []
    for group in dict.fromkeys(group for graph in graphs for group in graph.groups):
        member = np.array([group in graph.groups for graph in graphs])
        for name, values in found.items():
            ratio = values[member] / found[HEFT][member]
            interval = bootstrap(ratio, ["all"] * len(ratio), mean, np.random.default_rng(0))
            counted = win_tie_loss(values[member], found[HEFT][member])
            rows.append(
                {
                    "group": group,
                    "graphs": int(member.sum()),
                    "scheduler": name,
                    "makespan": float(values[member].mean()),
                    "to_heft": interval.value,
                    "to_heft_low": interval.low,
                    "to_heft_high": interval.high,
                    "to_lookahead": float((values[member] / found[LOOKAHEAD][member]).mean()),
                    "to_best_rule": float((values[member] / best_rule[member]).mean()),
                    "wins_heft": counted.wins,
                    "ties_heft": counted.ties,
                    "losses_heft": counted.losses,
                }
            )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("socdag_static.csv"))
    parser.add_argument("--quick", action="store_true", help="20 random graphs instead of 200")
    parser.add_argument("--schedulers", default=",".join(SCHEDULERS), help="after HEFT and look-ahead, comma-separated")
    options = parser.parse_args(arguments)
    names = dict.fromkeys((HEFT, LOOKAHEAD, *options.schedulers.split(",")))
    schedulers, notes = find_schedulers(list(names), canonical())
    graphs = graphs_of(quick=options.quick)
    rows = rows_of(graphs, makespans(schedulers, graphs))
    write_table(options.out, rows)
    for row in rows:
        if row["group"] in ("all", *_TILED):
            print(f"{row['group']!s:12s}{row['scheduler']!s:22s}{row['makespan']:9.2f}  to HEFT {row['to_heft']:.3f}")
    print("\n".join([*notes, f"wrote {options.out}"]))


if __name__ == "__main__":
    main()
