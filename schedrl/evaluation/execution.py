"""One run: call a scheduler on an instance, measure it, check the solution, recompute its objectives."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from schedrl.evaluation.results import ReferenceKind, ResultRow, RowStatus
from schedrl.families import Family, Instance, SuiteEntry, family_names, get_family
from schedrl.schedulers import Result, Scheduler, SchedulerSpec, Status, schedulers_of

__all__ = ["Outcome", "Reference", "Task", "failed_outcome", "reference_of", "run_task"]

# A run is reported as a timeout when it took more than this multiple of the limit and this much longer.
OVERRUN_FACTOR = 1.5
OVERRUN_SLACK_S = 1.0
# Kernels compile and weights load during a first call of this limit, on the smallest instance, outside the timing.
WARM_UP_LIMIT_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The value that gaps are taken to, what kind of value it is, and a note if it could not be found."""

    value: float | None
    kind: ReferenceKind
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One run to do; can be sent to another process when registered, or when family and spec can be pickled."""

    family: Family
    spec: SchedulerSpec
    suite: str
    instance: Instance
    reference: Reference
    seed: int
    time_limit_s: float
    warm_up: Instance | None

    @property
    def objective(self) -> str:
        """The instance's primary objective."""
        return self.family.objective_of(self.instance)

    def __reduce__(self) -> tuple[Callable[..., Task], tuple[Any, ...]]:
        name = self.family.name
        family = name if name in family_names() and get_family(name) is self.family else self.family
        registered = isinstance(family, str) and schedulers_of(name).get(self.spec.name) is self.spec
        spec = self.spec.name if registered else self.spec
        rest = (self.suite, self.instance, self.reference, self.seed, self.time_limit_s, self.warm_up)
        return _rebuild, (family, spec, *rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The rows of one run, one per objective, and its solution as JSON if the checker accepted it."""

    rows: tuple[ResultRow, ...]
    solution: str | None


def reference_of(family: Family, entry: SuiteEntry) -> Reference:
    """Return the best known value of an entry, else its best bound, else nothing."""
    if entry.best_known is not None:
        return Reference(value=entry.best_known, kind="optimal" if entry.optimal else "best-known")
    values = [] if entry.lower_bound is None else [entry.lower_bound]
    note = ""
    try:
        values += [bound.value for bound in family.bounds(entry.instance)]
    except Exception as error:  # a bound that fails must not cost the table its other columns
        note = f"no bound: {_one_line(error)}"
    if not values:
        return Reference(value=None, kind="", note=note)
    return Reference(value=max(values), kind="bound", note=note)


def run_task(task: Task, built: dict[str, Scheduler]) -> Outcome:
    """Run one task; whatever the scheduler does, the outcome says so in a row.

    ``built`` keeps schedulers by name between tasks. A new one is called once outside the timing first.
    Random numbers come from ``numpy.random.default_rng(seed)``.
    """
    started: float | None = None
    try:
        scheduler = _scheduler(task, built)
        memory = _MemoryMeter()
        rng = np.random.default_rng(task.seed)
        started = time.perf_counter()
        result = scheduler.schedule(task.instance, time_limit_s=task.time_limit_s, rng=rng)
        wall_s, started = time.perf_counter() - started, None
        return _judge(task, result, wall_s, memory.rise_mb())
    except Exception as error:
        wall = None if started is None else time.perf_counter() - started
        return failed_outcome(task, _one_line(error), wall_s=wall)


def failed_outcome(task: Task, message: str, *, wall_s: float | None = None) -> Outcome:
    """Return the single row of a run without a usable solution."""
    row = _row(task, task.objective, value=None, status="failed", message=message, wall_s=wall_s)
    return Outcome(rows=(row,), solution=None)


def _rebuild(family: Family | str, spec: SchedulerSpec | str, *rest: Any) -> Task:
    known = get_family(family) if isinstance(family, str) else family
    found = schedulers_of(known.name)[spec] if isinstance(spec, str) else spec
    suite, instance, reference, seed, limit, warm_up = rest
    return Task(
        family=known,
        spec=found,
        suite=suite,
        instance=instance,
        reference=reference,
        seed=seed,
        time_limit_s=limit,
        warm_up=warm_up,
    )


def _scheduler(task: Task, built: dict[str, Scheduler]) -> Scheduler:
    if task.spec.name not in built:
        scheduler = task.spec.make()
        if task.warm_up is not None:
            limit = min(task.time_limit_s, WARM_UP_LIMIT_S)
            with suppress(Exception):  # the timed call will say what is wrong
                scheduler.schedule(task.warm_up, time_limit_s=limit, rng=np.random.default_rng(0))
        built[task.spec.name] = scheduler
    return built[task.spec.name]


# A result without a solution, as a row's status; claiming success without a solution is a failure.
_WITHOUT_SOLUTION: dict[Status, RowStatus] = {
    "optimal": "failed",
    "feasible": "failed",
    "failed": "failed",
    "timeout": "timeout",
    "infeasible": "infeasible",
}


def _judge(task: Task, result: Result, wall_s: float, memory_mb: float | None) -> Outcome:
    measured: dict[str, Any] = {"wall_s": wall_s, "decisions": result.decisions, "peak_memory_mb": memory_mb}
    if result.solution is None:
        status, message = _WITHOUT_SOLUTION[result.status], f"{result.status} without a solution"
        row = _row(task, task.objective, value=None, status=status, message=message, **measured)
        return Outcome(rows=(row,), solution=None)
    if violations := task.family.check(task.instance, result.solution):
        row = _row(task, task.objective, value=None, status="failed", message=violations[0], **measured)
        return Outcome(rows=(row,), solution=None)
    values = task.family.objectives(task.instance, result.solution)
    late = wall_s > max(OVERRUN_FACTOR * task.time_limit_s, task.time_limit_s + OVERRUN_SLACK_S)
    notes = _notes(task, result, values[task.objective])
    if late:
        notes.insert(0, f"took {wall_s:.1f} s of {task.time_limit_s:g} s")
    rows = tuple(
        _row(
            task,
            name,
            value=float(value),
            status="timeout" if late else "ok",
            message="; ".join(notes),
            checked=True,
            **measured,
        )
        for name, value in values.items()
    )
    return Outcome(rows=rows, solution=result.solution.to_json())


def _notes(task: Task, result: Result, value: float) -> list[str]:
    notes = [task.reference.note] if task.reference.note else []
    if result.objective is not None and not np.isclose(result.objective, value, rtol=1e-9):
        notes.append(f"reported {result.objective:g}, its solution has {value:g}")
    if result.lower_bound is not None and result.lower_bound > value * (1 + 1e-9):
        notes.append(f"claims the bound {result.lower_bound:g} above its value {value:g}")
    reference = task.reference
    if reference.kind in ("optimal", "bound") and reference.value is not None and value < reference.value * (1 - 1e-9):
        notes.append(f"value {value:g} is below the {reference.kind} {reference.value:g}, so that must be wrong")
    return notes


def _row(
    task: Task,
    objective: str,
    *,
    value: float | None,
    status: RowStatus,
    message: str,
    wall_s: float | None = None,
    decisions: int = 0,
    peak_memory_mb: float | None = None,
    checked: bool = False,
) -> ResultRow:
    primary = objective == task.objective
    reference = task.reference.value if primary else None
    return ResultRow(
        family=task.family.name,
        suite=task.suite,
        instance=task.instance.name,
        scheduler=task.spec.name,
        information=task.spec.information,
        seed=task.seed,
        objective=objective,
        value=value,
        reference=reference,
        reference_kind=task.reference.kind if primary else "",
        gap=_gap(value, reference),
        wall_s=None if wall_s is None else round(wall_s, 6),
        decisions=decisions,
        peak_memory_mb=None if peak_memory_mb is None else round(peak_memory_mb, 1),
        checked=checked,
        status=status,
        message=message,
    )


def _gap(value: float | None, reference: float | None) -> float | None:
    """(value - reference) / reference; 0 for 0 against 0, and undefined for anything else against 0."""
    if value is None or reference is None:
        return None
    if reference == 0:
        return 0.0 if value == 0 else None
    return (value - reference) / reference


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__


class _MemoryMeter:
    """Rise of this process's resident memory above its level at construction.

    Linux keeps a resettable high-water mark in /proc. Elsewhere ``ru_maxrss`` is used, whose mark cannot be
    reset: there a call that needs less than an earlier one reads 0. Child processes are not counted.
    """

    def __init__(self) -> None:
        self._resettable = True
        self._start_mb: float | None
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            self._start_mb = self._proc_mb("VmRSS")
        except (OSError, KeyError):
            self._resettable = False
            self._start_mb = _ru_maxrss_mb()

    def rise_mb(self) -> float | None:
        peak = self._proc_mb("VmHWM") if self._resettable else _ru_maxrss_mb()
        return None if peak is None or self._start_mb is None else max(0.0, peak - self._start_mb)

    @staticmethod
    def _proc_mb(field: str) -> float:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        sizes = dict(line.split(":", 1) for line in lines if ":" in line)
        return float(sizes[field].split()[0]) / 1024


def _ru_maxrss_mb() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    import sys

    unit = 2**20 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
