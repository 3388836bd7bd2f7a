"""How far the mapping of four traced programs is from its bounds, beside a published table of the same programs.

Run by hand: ``python -m schedrl.experiments.benchmarks.memmap_headroom --traces DIR`` with the folder of
``*.mmap.json`` traces. One row per program and device, times in milliseconds. Methods that are not registered leave
their column empty. Every plan passes the checker.

The published bounds have copies share the bus in total only. Ours also know when there is time for a copy, so they are
larger. The published heuristics hide copies behind all of an operation's time, ours only while its own accesses leave
the bus idle: some published figures lie below our bounds, and no plan of our rules has them.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from schedrl.baselines.memmap.relaxation_rounding import RelaxationRounding
from schedrl.devices.memory import MemoryDevice, MemoryLayer
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import fast_bound_s, slow_latency_s
from schedrl.envs.memmap.plan import MemoryPlan
from schedrl.envs.memmap.plan_check import check_plan, plan_objectives
from schedrl.envs.memmap.relaxation import solve_relaxation
from schedrl.errors import UnknownNameError
from schedrl.experiments.measurement import write_table
from schedrl.schedulers import Scheduler, get_scheduler

__all__ = ["DEVICES", "PUBLISHED", "main", "measure"]

_MIB = 2**20
# Peak flops per second, slow bytes per second, fast capacity; the fast layer is ten times as fast as the slow one.
DEVICES: dict[str, tuple[float, float, int]] = {
    "v4i-128": (138e12, 614e9, 128 * _MIB),
    "v4i-16": (138e12, 614e9, 16 * _MIB),
    "v5e-48": (197e12, 819e9, 48 * _MIB),
}
# Milliseconds by an independent implementation: all slow, XLA-like greedy, order search, integer and linear bound.
PUBLISHED: dict[tuple[str, str], tuple[float, float, float, float | None, float]] = {
    ("resnet50_infer_b32", "v4i-128"): (9.054, 3.115, 2.964, 2.739, 2.600),
    ("resnet50_infer_b32", "v4i-16"): (9.054, 7.787, 7.453, 7.379, 7.160),
    ("resnet50_infer_b32", "v5e-48"): (6.737, 4.554, 4.341, 4.284, 3.878),
    ("gpt2_infer_b4_t512", "v4i-128"): (8.603, 4.431, 4.431, 4.317, 4.317),
    ("gpt2_infer_b4_t512", "v4i-16"): (8.603, 7.372, 7.183, 7.151, 7.077),
    ("gpt2_infer_b4_t512", "v5e-48"): (6.269, 3.169, 3.169, 3.127, 3.127),
    ("resnet50_train_b32", "v4i-128"): (22.977, 9.873, 9.732, None, 7.639),
    ("resnet50_train_b32", "v4i-16"): (22.977, 20.354, 20.207, None, 18.537),
    ("resnet50_train_b32", "v5e-48"): (17.055, 12.240, 12.113, None, 10.339),
}
PROGRAMS = ("resnet50_infer_b32", "gpt2_infer_b4_t512", "resnet50_train_b32", "gpt2_train_b4_t512")
METHODS = {"xla": "memmap/xla", "order_search": "memmap/xla-restarts"}


def device(name: str) -> MemoryDevice:
    """Return a device of the table, which knows two layers and hides copies while the bus is idle."""
    flops, rate, capacity = DEVICES[name]
    slow = MemoryLayer(name="HBM", read_bytes_per_s=rate, write_bytes_per_s=rate)
    fast = MemoryLayer(name="CMEM", read_bytes_per_s=10 * rate, write_bytes_per_s=10 * rate, capacity_bytes=capacity)
    return MemoryDevice(name=name, flops_per_s=flops, layers=(slow, fast))


def measure(instance: MemoryMapInstance, time_limit_s: float) -> dict[str, object]:
    """Return a row: latencies of methods and bounds in milliseconds, and what they took in seconds.

    Raises:
        RuntimeError: a plan breaks a rule of the problem.
    """
    started = time.perf_counter()
    linear = solve_relaxation(instance)
    linear_s = time.perf_counter() - started
    started = time.perf_counter()
    integer = solve_relaxation(instance, integer=True, time_limit_s=time_limit_s)
    integer_s = time.perf_counter() - started
    row: dict[str, object] = {
        "program": instance.name,
        "device": instance.memory.name,
        "all_slow": _ms(slow_latency_s(instance)),
    }
    methods: dict[str, Scheduler | None] = {column: _scheduler(name) for column, name in METHODS.items()}
    repair = RelaxationRounding()
    row |= {column: _run(method, instance, time_limit_s) for column, method in methods.items()}
    result = repair.schedule(instance, time_limit_s=time_limit_s, rng=np.random.default_rng(0))
    assert isinstance(result.solution, MemoryPlan)
    bound = max(integer.bound_s, linear.bound_s)
    latency = _checked(instance, result.solution)
    return row | {
        "milp_repair": _ms(latency),
        "milp_bound": _ms(bound),
        "lp_bound": _ms(linear.bound_s),
        "all_fast": _ms(fast_bound_s(instance)),
        "milp_repair_over_bound_percent": round(100.0 * (latency / bound - 1.0), 3),
        "milp_solved": integer.optimal,
        "milp_seconds": round(integer_s, 2),
        "lp_seconds": round(linear_s, 2),
        "time_limit_s": time_limit_s,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, rewrite the CSV after each row, and print ours beside what was published."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    traces = Path(os.environ.get("SCHEDRL_DATA", ".")) / "memmap" / "torch_traces"
    parser.add_argument("--traces", type=Path, default=traces, metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("memmap_headroom.csv"))
    parser.add_argument("--time-limit", type=float, default=10.0, metavar="S", help="of each method and bound")
    parser.add_argument("programs", nargs="*", help=f"{', '.join(PROGRAMS)} by default")
    options = parser.parse_args(arguments)
    rows: list[dict[str, object]] = []
    if options.out.exists():
        with options.out.open(newline="") as file:
            rows = [dict(row) for row in csv.DictReader(file)]
    for program in options.programs or PROGRAMS:
        path = options.traces / f"{program}.mmap.json"
        data = json.loads(path.read_text(encoding="utf-8")) | {"name": program}
        for name in DEVICES:
            if not any((row["program"], row["device"]) == (program, name) for row in rows):
                instance = MemoryMapInstance.from_program(data, memory=device(name), source=str(path))
                columns = ("all_slow", "xla", "order_search", "milp_bound", "lp_bound")
                figures = PUBLISHED.get((program, name), (None,) * 5)
                published = {f"published_{column}": value for column, value in zip(columns, figures, strict=True)}
                rows.append(measure(instance, options.time_limit) | published)
                write_table(options.out, rows)
            print(_line(next(row for row in rows if (row["program"], row["device"]) == (program, name))), flush=True)


def _line(row: dict[str, object]) -> str:
    return (
        f"{row['program']} {row['device']}: slow {row['all_slow']}, xla {row['xla']} ({row['published_xla']}), "
        f"order search {row['order_search']} ({row['published_order_search']}), milp-repair {row['milp_repair']}, "
        f"milp {row['milp_bound']} ({row['published_milp_bound']}), lp {row['lp_bound']} ({row['published_lp_bound']})"
    )


def _scheduler(name: str) -> Scheduler | None:
    try:
        return get_scheduler(name).make()
    except UnknownNameError:
        return None


def _run(method: Scheduler | None, instance: MemoryMapInstance, time_limit_s: float) -> float | None:
    if method is None:
        return None
    result = method.schedule(instance, time_limit_s=time_limit_s, rng=np.random.default_rng(0))
    assert isinstance(result.solution, MemoryPlan)
    return _ms(_checked(instance, result.solution))


def _checked(instance: MemoryMapInstance, plan: MemoryPlan) -> float:
    if violations := check_plan(instance, plan):
        raise RuntimeError(f"{instance.name} on {instance.memory.name}: {violations[0]}")
    return plan_objectives(instance, plan)["latency"]


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 4)


if __name__ == "__main__":
    main()
