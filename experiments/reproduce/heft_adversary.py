"""Instances on which one scheduler is as much worse than another as simulated annealing can make it.

Run by hand: ``python -m schedrl.experiments.reproduce.heft_adversary`` (``--quick`` for a look in about a minute).
The search is PISA's (Coleman, Krishnamachari, arXiv 2403.07120): task graphs of 3 to 5 tasks that start as a chain,
on 3 to 5 devices that differ by a speed, all pairs linked; all weights from 0.1 to 1; each step moves one weight by up
to 0.1 or adds or removes an edge. Temperature falls from 10 to 0.1 by a hundredth a step and is here a loss in per
cent of the ratio, which makes one schedule fit small and large ratios. For every scheduler its worst instances are
written as JSON; they are the suite ``adversarial``.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np

import schedrl.envs.socdag as family_package
from schedrl.arrays import F64, Bool
from schedrl.atomic import write_text
from schedrl.devices import Device, Link, Platform
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.structured import canonical
from schedrl.envs.socdag.task_graph import TaskGraph
from schedrl.experiments.measurement import (
    Verdict,
    checked_objectives,
    find_schedulers,
    write_table,
    write_verdicts,
)
from schedrl.plotting.lines import Line, LineChart, save_lines
from schedrl.schedulers import Scheduler

__all__ = ["SCHEDULERS", "Case", "Found", "chain", "main", "perturbed", "search", "verdicts_of"]

SCHEDULERS = tuple(
    f"socdag/{name}" for name in ("heft", "peft", "lookahead", "cpop", "min-min", "fastest", "mct", "ppo")
)
_SEED = 20261002
_LEAST, _MOST, _STEP = 0.1, 1.0, 0.1
_SIZES = (3, 5)
_HOT, _COLD, _COOLING = 10.0, 0.1, 0.99


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """What the search changes: weights of tasks, edges, devices and links, and which edges there are."""

    cost: F64  # (T,) seconds at speed 1
    volume: F64  # (T, T) bytes from the row's to the column's task
    edge: Bool  # (T, T) above the diagonal
    speed: F64  # (P,)
    bandwidth: F64  # (P, P) bytes per second; symmetric, the diagonal means nothing

    def instance(self, name: str) -> SocDagInstance:
        """Return the case as an instance."""
        names = [f"P{number}" for number in range(1, len(self.speed) + 1)]
        links = {
            (source, target): Link(latency_s=0.0, bandwidth_bytes_per_s=float(self.bandwidth[p, q]))
            for p, source in enumerate(names)
            for q, target in enumerate(names)
            if p != q
        }
        edge = np.argwhere(self.edge).astype(np.int32)
        graph = TaskGraph(
            name=name,
            task_names=tuple(f"t{number}" for number in range(len(self.cost))),
            duration=self.cost[:, None] / self.speed,
            edge=edge,
            edge_bytes=self.volume[edge[:, 0], edge[:, 1]],
        )
        devices = tuple(Device(name=device) for device in names)
        return SocDagInstance(
            name=name, platform=Platform(devices=devices, counts=(1,) * len(names), links=links), graphs=(graph,)
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """The worst case of one scheduler against another."""

    first: str
    second: str
    case: Case
    ratio: float  # makespan of the first over that of the second

    @property
    def name(self) -> str:
        """Name of the instance and, with a suffix, of its file."""
        return f"adversarial-{_short(self.first)}-vs-{_short(self.second)}"


def _short(name: str) -> str:
    return name.partition("/")[2].partition("@")[0]


def chain(rng: np.random.Generator) -> Case:
    """Draw the start of a search."""
    tasks, devices = rng.integers(*_SIZES, size=2, endpoint=True)
    bandwidth = rng.uniform(_LEAST, _MOST, size=(devices, devices))
    return Case(
        cost=rng.uniform(_LEAST, _MOST, size=tasks),
        volume=rng.uniform(_LEAST, _MOST, size=(tasks, tasks)),
        edge=np.eye(tasks, k=1, dtype=np.bool_),
        speed=rng.uniform(_LEAST, _MOST, size=devices),
        bandwidth=np.triu(bandwidth, 1) + np.triu(bandwidth, 1).T + np.eye(devices),
    )


def perturbed(case: Case, rng: np.random.Generator) -> Case:
    """Return the case with one weight moved, or one edge more or less."""
    kind = int(rng.integers(6))
    arrays = {name: getattr(case, name).copy() for name in ("cost", "volume", "edge", "speed", "bandwidth")}
    tasks, devices = len(case.cost), len(case.speed)
    if kind < 2:
        _move(rng, arrays[("cost", "speed")[kind]], (int(rng.integers((tasks, devices)[kind])),))
    elif kind == 2:
        p, q = rng.choice(devices, size=2, replace=False).tolist()
        _move(rng, arrays["bandwidth"], (p, q))
        arrays["bandwidth"][q, p] = arrays["bandwidth"][p, q]
    else:
        # Moves the weight of an edge (3), adds an edge (4) or removes one (5), where there is one to take.
        pairs = np.argwhere(np.triu(~case.edge if kind == 4 else case.edge, 1))
        if len(pairs):
            i, j = pairs[rng.integers(len(pairs))].tolist()
            if kind == 3:
                _move(rng, arrays["volume"], (i, j))
            else:
                arrays["edge"][i, j] = kind == 4
    return dataclasses.replace(case, **arrays)


def _move(rng: np.random.Generator, weights: F64, at: tuple[int, ...]) -> None:
    weights[at] = np.clip(weights[at] + rng.uniform(-_STEP, _STEP), _LEAST, _MOST)


def search(
    pair: tuple[str, str], schedulers: Mapping[str, Scheduler], rng: np.random.Generator, iterations: int, restarts: int
) -> Found:
    """Return the worst case found for the first scheduler of a pair against the second."""
    first, second = (schedulers[name] for name in pair)
    best: tuple[float, Case] | None = None
    for _ in range(restarts):
        case = chain(rng)
        ratio = _ratio(first, second, case)
        for step in range(iterations):
            if best is None or ratio > best[0]:
                best = ratio, case
            changed = perturbed(case, rng)
            other = _ratio(first, second, changed)
            temperature = max(_COLD, _HOT * _COOLING**step)
            if other >= ratio or rng.random() < np.exp(100.0 * (other / ratio - 1.0) / temperature):
                case, ratio = changed, other
        if best is None or ratio > best[0]:
            best = ratio, case
    assert best is not None
    return Found(first=pair[0], second=pair[1], case=best[1], ratio=best[0])


def _ratio(first: Scheduler, second: Scheduler, case: Case) -> float:
    instance = case.instance("case")
    rng = np.random.default_rng(0)
    ours, theirs = (s.schedule(instance, time_limit_s=60.0, rng=rng).objective for s in (first, second))
    assert ours is not None and theirs is not None
    return ours / theirs


def _row(found: Found, schedulers: Mapping[str, Scheduler], kept: bool) -> dict[str, object]:
    """Return the table's row; both makespans come from schedules that passed the checker."""
    instance = found.case.instance(found.name)
    ours, theirs = (checked_objectives(schedulers[name], instance)["makespan"] for name in (found.first, found.second))
    return {
        "scheduler": found.first,
        "against": found.second,
        "ratio": ours / theirs,
        "makespan": ours,
        "makespan_against": theirs,
        "tasks": instance.tasks,
        "devices": instance.devices,
        "file": f"{found.name}.json" if kept else None,
    }


def _kept(found: Sequence[Found], keep: int) -> list[Found]:
    """Return the worst cases of each scheduler that make it worse at all."""
    kept = []
    for name in dict.fromkeys(case.first for case in found):
        own = sorted((case for case in found if case.first == name), key=lambda case: -case.ratio)
        kept += [case for case in own[:keep] if case.ratio > 1.0]
    return kept


def verdicts_of(found: Sequence[Found]) -> list[Verdict]:
    """Return what became of PISA's two claims."""
    verdicts = []
    trap = next(
        (case.ratio for case in found if (_short(case.first), _short(case.second)) == ("heft", "fastest")), None
    )
    if trap is not None:
        verdicts.append(
            Verdict(
                claim="PISA: HEFT can be 4.34 times worse than putting everything on the fastest device",
                measured=f"{trap:.2f} times",
                verdict="confirmed" if trap >= 4.34 else f"reached {100 * trap / 4.34:.0f} % of it",
            )
        )
    worst = {name: max(c.ratio for c in found if c.first == name) for name in dict.fromkeys(c.first for c in found)}
    short = [_short(name) for name, ratio in worst.items() if ratio < 2.0]
    verdicts.append(
        Verdict(
            claim="PISA: for every algorithm there is an instance on which it is at least 2 times worse than another",
            measured=", ".join(f"{_short(name)} {ratio:.2f}" for name, ratio in worst.items()),
            verdict=f"confirmed but for {', '.join(short)}" if short else "confirmed",
        )
    )
    return verdicts


def _chart(found: Sequence[Found]) -> LineChart:
    lines = []
    for name in dict.fromkeys(case.first for case in found):
        ratios = np.sort([case.ratio for case in found if case.first == name])[::-1]
        lines.append(Line(label=name, x=np.arange(1.0, len(ratios) + 1), y=ratios))
    return LineChart(
        title="Worst case against each other scheduler, worst first",
        x_label="rank of the opponent",
        y_label="makespan ratio",
        lines=tuple(lines),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Search all pairs, print, and write CSV, picture, verdicts and instances."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the results")
    parser.add_argument(
        "--instances", type=Path, default=Path(family_package.__path__[0]) / "data", help="folder of the instances"
    )
    parser.add_argument("--quick", action="store_true", help="300 iterations, one restart")
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--keep", type=int, default=3, help="instances to keep per scheduler")
    parser.add_argument("--schedulers", default=",".join(SCHEDULERS))
    options = parser.parse_args(arguments)
    iterations, restarts = (300, 1) if options.quick else (options.iterations, options.restarts)
    schedulers, notes = find_schedulers(options.schedulers.split(","), canonical())
    found = []
    for number, pair in enumerate(permutations(schedulers, 2)):
        rng = np.random.default_rng((_SEED, number))
        found.append(search(pair, schedulers, rng, iterations, restarts))
        print(f"{pair[0]} against {pair[1]}: {found[-1].ratio:.3f}", flush=True)
    kept = _kept(found, options.keep)
    for old in options.instances.glob("adversarial-*.json"):
        old.unlink()
    for case in kept:
        write_text(options.instances / f"{case.name}.json", case.case.instance(case.name).to_json() + "\n")
    write_table(options.out / "heft_adversary.csv", [_row(case, schedulers, case in kept) for case in found])
    save_lines(_chart(found), options.out / "heft_adversary.svg")
    write_verdicts(options.out / "heft_adversary.json", verdicts_of(found), notes)


if __name__ == "__main__":
    main()
