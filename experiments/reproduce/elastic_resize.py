"""A device lost or added: what moves, how long that takes and how balanced the plan is, kept against made afresh.

Run by hand: ``python -m schedrl.experiments.reproduce.elastic_resize``. The plan before is LPT with swaps on the mean
of the history; balance and time of a forward pass are those of the windows after it. Experts that no device holds any
more come from a host at the catalogue's PCIe rate.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from schedrl.arrays import I32
from schedrl.baselines.moe.elastic import Resized, replan, resize_plan
from schedrl.baselines.moe.exact import history_mean
from schedrl.baselines.moe.packing import balanced_placement
from schedrl.devices.cluster import Cluster, ClusterNode
from schedrl.envs.moe.generators import placement
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.solution import check_plan, plan_objectives
from schedrl.experiments.measurement import Verdict, write_table, write_verdicts

__all__ = ["CASES", "main", "measure", "resized_cluster", "verdicts_of"]

# (profile, devices per node afterwards, surviving devices where a whole node is gone)
CASES: tuple[tuple[str, tuple[int, ...], tuple[int, ...] | None], ...] = (
    ("deepseek-r1-mt", (8, 8, 8, 7), None),
    ("deepseek-r1-mt", (8, 8, 8), tuple(range(24))),
    ("deepseek-r1-mt", (8, 8, 8, 9), None),
    ("deepseek-r1-mt", (8, 8, 8, 8, 8), None),
    ("qwen15-moe", (5,), None),
    ("qwen15-moe", (7,), None),
    ("mixtral", (2, 1), None),
    ("mixtral", (2, 3), None),
)
_GIB = 2**30


def resized_cluster(cluster: Cluster, counts: tuple[int, ...]) -> Cluster:
    """Return a cluster of nodes like the first with these numbers of devices."""
    node = cluster.nodes[0]
    return Cluster(
        nodes=tuple(
            ClusterNode(device=node.device, count=count, intra=node.intra, inter=node.inter) for count in counts
        )
    )


def measure(layers: int, seed: int = 0) -> list[dict[str, object]]:
    """Return a row for each case and way to resize.

    Raises:
        RuntimeError: a plan that breaks a rule of the problem.
    """
    rows: list[dict[str, object]] = []
    for profile, counts, alive in CASES:
        instance = placement(np.random.default_rng(seed), profile=profile, layers=layers, windows=8)
        before = balanced_placement(instance, history_mean(instance))
        cluster = resized_cluster(instance.cluster, counts)
        ways = _ways(instance, before, cluster, None if alive is None else np.array(alive))
        for way, resize in ways.items():
            started = time.perf_counter()
            found = resize()
            solve_s = time.perf_counter() - started
            if wrong := check_plan(found.instance, found.plan):
                raise RuntimeError(f"{profile} {counts} {way}: {wrong[0]}")
            objectives = plan_objectives(found.instance, found.plan)
            rows.append(
                {"profile": profile, "layers": layers, "devices": instance.devices, "after": cluster.devices}
                | {"way": way, "moved_gib": found.moved_bytes / _GIB, "from_host_gib": found.host_bytes / _GIB}
                | {"migration_s": found.seconds, "balance_vllm": objectives["balance_vllm"]}
                | {"iteration_ms": 1e3 * objectives["iteration_s"], "solve_s": solve_s}
            )
            print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    return rows


def _ways(
    instance: ExpertPlacementInstance, before: I32, cluster: Cluster, survivors: I32 | None
) -> dict[str, Callable[[], Resized]]:
    keep = {
        f"keep, {swaps} swaps": partial(resize_plan, instance, before, cluster, survivors=survivors, swaps=swaps)
        for swaps in (0, 2, 8)
    }
    afresh = partial(replan, instance, before, cluster, survivors=survivors)
    return {**keep, "afresh, relabelled": partial(afresh, relabel=True), "afresh": afresh}


def verdicts_of(rows: Sequence[Mapping[str, object]]) -> list[Verdict]:
    """Return, for each case, what keeping costs and saves against a fresh plan."""
    verdicts, size = [], len(rows) // len(CASES)
    for first in range(0, len(rows), size):
        case = {str(row["way"]): row for row in rows[first : first + size]}
        kept, fresh = case["keep, 2 swaps"], case["afresh"]
        figures = [
            [float(str(row[name])) for name in ("moved_gib", "migration_s", "iteration_ms")] for row in (kept, fresh)
        ]
        (moved, seconds, pass_ms), (fresh_moved, fresh_s, fresh_ms) = figures
        slower = pass_ms / fresh_ms - 1
        passes = (fresh_s - seconds) / (pass_ms - fresh_ms) * 1e3 if pass_ms > fresh_ms else np.inf
        verdicts.append(
            Verdict(
                claim=f"{kept['profile']}, {kept['devices']} devices to {kept['after']}: keeping moves less",
                measured=f"{moved:.3g} GiB in {seconds:.3g} s against {fresh_moved:.3g} GiB in {fresh_s:.3g} s",
                verdict=f"{1 - moved / fresh_moved:.0%} fewer bytes; a forward pass takes {slower:+.1%}, "
                + (f"so that a fresh plan pays after {passes:.0f} passes" if np.isfinite(passes) else "at no loss"),
            )
        )
    return verdicts


_NOTES = (
    "Keeping with 2 swaps per layer is compared; the table has 0 and 8 swaps, and fresh plans relabelled to overlap.",
    "Migration halts everything, layers one after the other; no engine overlaps it with work here.",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write CSV and verdicts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the results")
    parser.add_argument("--layers", type=int, default=4, help="layers with experts")
    options = parser.parse_args(arguments)
    rows = measure(options.layers)
    write_table(options.out / "elastic_resize.csv", rows)
    write_verdicts(options.out / "elastic_resize.json", verdicts_of(rows), _NOTES)


if __name__ == "__main__":
    main()
