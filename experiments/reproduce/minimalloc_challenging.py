"""Complete offset packing on MiniMalloc's challenging suite and on two large traces: times to fit, and peaks by time.

Run by hand: ``python -m schedrl.experiments.reproduce.minimalloc_challenging`` (``--quick`` for the times alone),
with the data folder in ``SCHEDRL_DATA``. A time to fit is that of one thread, from the instance in memory to a packing
within 1048576 bytes, after compilation; peaks are those of separate runs without a capacity. Every packing passes the
checker. The orders and branching rules of the search were chosen on this very suite.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from schedrl.baselines.memmap.complete import CompletePacking
from schedrl.envs.memmap.formats import read_minimalloc
from schedrl.envs.memmap.packing import OffsetPackingInstance, Packing, check_packing, max_live
from schedrl.experiments.measurement import Verdict, write_table, write_verdicts
from schedrl.schedulers import Result

__all__ = ["CAPACITY", "LARGE", "LIMITS_S", "MEASURED_S", "PUBLISHED_S", "main", "measure", "solved", "verdicts_of"]

CAPACITY = 2**20
LIMITS_S = (3.0, 10.0, 60.0)
_FIT_LIMIT_S = 60.0

# MiniMalloc in C++ at the capacity: slides of the authors (ASPLOS 2023), and a run of ours on a machine like this.
PUBLISHED_S: Mapping[str, float] = MappingProxyType(
    dict(zip("ABCDEFGHIJK", (4.910, 3.661, 0.637, 2.674, 3.717, 5.358, 1.181, 1.808, 3.908, 0.883, 0.628), strict=True))
)
MEASURED_S: Mapping[str, float] = MappingProxyType(
    dict(zip("ABCDEFGHIJK", (4.81, 5.81, 1.26, 5.29, 6.25, 7.52, 1.46, 2.66, 4.33, 1.03, 0.77), strict=True))
)
# Best peak over live bytes of any public packer within about a minute, in a run of ours.
LARGE: Mapping[str, float] = MappingProxyType({"somas_pangu_2": 1.0076, "S_1": 1.0139})
# Upper ends of what was known about the least peak of the two instances that are open.
KNOWN: Mapping[str, int] = MappingProxyType({"D": 1038336, "J": 1043456})


def solved(instance: OffsetPackingInstance, limit_s: float, *, stop: bool = False, seed: int = 0) -> Result:
    """Return the result of the complete search.

    Raises:
        RuntimeError: a packing that breaks a rule of the problem.
    """
    scheduler = CompletePacking(stop_at_capacity=stop)
    result = scheduler.schedule(instance, time_limit_s=limit_s, rng=np.random.default_rng(seed))
    if isinstance(result.solution, Packing) and (found := check_packing(instance, result.solution)):
        raise RuntimeError(f"{instance.name}: {found[0]}")
    return result


def measure(instances: Sequence[OffsetPackingInstance], limits_s: Sequence[float]) -> list[dict[str, object]]:
    """Return one row per instance: the time to fit for the suite, and the peak at each limit."""
    rows: list[dict[str, object]] = []
    for instance in instances:
        live, in_suite = max_live(instance), instance.name in PUBLISHED_S
        row: dict[str, object] = {"instance": instance.name, "buffers": instance.buffers, "live": live}
        fit = None
        if in_suite:
            within = dataclasses.replace(instance, capacity=CAPACITY)
            result = solved(within, _FIT_LIMIT_S, stop=True)
            fit = result.runtime_s if result.solution is not None else None
        row |= {"fit_s": fit, "published_s": PUBLISHED_S.get(instance.name), "cpp_s": MEASURED_S.get(instance.name)}
        for limit in limits_s:
            result = solved(instance, limit)
            row |= {f"peak_{limit:g}s": int(result.objective or 0), f"ratio_{limit:g}s": (result.objective or 0) / live}
            row |= {"status": result.status, "bound": int(result.lower_bound or 0)}
        rows.append(row)
        print(", ".join(f"{key} {value}" for key, value in row.items() if value is not None), flush=True)
    return rows


def verdicts_of(rows: Sequence[Mapping[str, object]]) -> list[Verdict]:
    """Return what became of the claims."""
    suite = [row for row in rows if row["instance"] in PUBLISHED_S]
    times = [float(str(row["fit_s"])) for row in suite if row["fit_s"] is not None]
    names = [str(row["instance"]) for row in suite]
    published, measured = (sum(table[name] for name in names) for table in (PUBLISHED_S, MEASURED_S))
    verdicts = [
        Verdict(
            claim=f"MiniMalloc fits {len(suite)} instances in {published:.1f} s (slides) or {measured:.1f} s (our run)",
            measured=f"{len(times)} fit in {sum(times):.2f} s, {max(times, default=0.0):.2f} s at most",
            verdict=f"{measured / sum(times):.0f} times as fast; orders and rules were chosen on this suite"
            if len(times) == len(suite)
            else "not all fit",
        )
    ]
    last = max((key for row in rows for key in row if key.startswith("peak_")), key=_seconds, default=None)
    if last is None:
        return verdicts
    for row in rows:
        name, peak, live = str(row["instance"]), int(str(row[last])), int(str(row["live"]))
        if name in KNOWN:
            better = f"{KNOWN[name] - peak} bytes lower" if peak < KNOWN[name] else "no progress"
            claim = f"the least peak of {name} lies in [{live}, {KNOWN[name]}]"
        elif name in LARGE:
            better = "met" if peak <= (LARGE[name] + 5e-5) * live else "not met"
            claim = f"the best public packers reach {LARGE[name]:.4f} of the live bytes of {name}"
        else:
            continue
        within = f"{peak}, {peak / live:.4f} of the live bytes, within {_seconds(last):g} s"
        verdicts.append(Verdict(claim=claim, measured=within, verdict=better))
    proven = [str(row["instance"]) for row in suite if row["status"] == "optimal"]
    words = ", ".join(proven) or "none"
    return [
        *verdicts,
        Verdict(
            claim="the live bytes are the least peak of nine of the eleven: all but D and J",
            measured=f"met by {words}",
            verdict=f"{len(proven)} of {len(suite)} proven optimal",
        ),
    ]


def _seconds(column: str) -> float:
    return float(column.removeprefix("peak_").removesuffix("s"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write CSV and verdicts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the results")
    parser.add_argument("--data", type=Path, default=os.environ.get("SCHEDRL_DATA"), help="folder of the data sets")
    parser.add_argument("--quick", action="store_true", help="times to fit alone")
    options = parser.parse_args(arguments)
    if options.data is None:
        parser.error("argument --data: SCHEDRL_DATA is unset")
    folder = options.data / "memmap"
    suite = [read_minimalloc(path) for path in sorted((folder / "minimalloc_challenging").glob("*.csv"))]
    large = [read_minimalloc(folder / "idealloc_suite" / f"{name}.csv") for name in ("somas_pangu_2.6B", "S_1")]
    rows = measure(suite, ()) if options.quick else measure([*suite, *large], LIMITS_S)
    write_table(options.out / "minimalloc_challenging.csv", rows)
    write_verdicts(options.out / "minimalloc_challenging.json", verdicts_of(rows), [])


if __name__ == "__main__":
    main()
