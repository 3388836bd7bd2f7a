"""``schedrl solve``, ``validate`` and ``explain``: one instance, one solution, one independent verdict and its why."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from schedrl.cli.arguments import FamilyName, JsonFlag, Seed, TimeLimit
from schedrl.cli.console import emit_json, number, percent, print_fields
from schedrl.errors import ConfigError, SolutionError

__all__ = ["explain", "solve", "validate"]

_WARM_UP_LIMIT_S = 0.05


def solve(
    family: FamilyName,
    scheduler: Annotated[str, typer.Argument(help="Scheduler, or SCHEDULER@FILE with your own bundle.")],
    instance: Annotated[str, typer.Argument(help="File, FILE#NAME, SUITE/NAME, or the NAME of any suite's instance.")],
    time_limit: TimeLimit = 10.0,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the solution as JSON.")] = None,
    gantt: Annotated[Path | None, typer.Option("--gantt", help="Draw the solution: .png, .svg or .html.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Solve one instance, check the solution independently, and print objective, bound and gap.

    Exit code 1 if there is no solution or the checker rejects it.

    For example:

        schedrl solve jobshop cp-sat ft06

        schedrl solve jobshop spt-twkr taillard/ta01 --gantt ta01.html

        schedrl solve jobshop tabu my-shop.txt --time-limit 30 --out solution.json
    """
    import numpy as np

    from schedrl.atomic import write_text
    from schedrl.cli.names import find_family, find_instance, find_schedulers

    found = find_family(family)
    (spec,) = find_schedulers(found, [scheduler])
    entry = find_instance(found, instance)
    problem = found.problem_of(entry.instance)
    if spec.problem not in ("", problem):
        raise ConfigError(
            f"{spec.name} solves problems of kind {spec.problem}, {entry.instance.name} is of kind {problem}"
        )
    method = spec.make()
    _warm_up(found, method, entry.instance)
    result = method.schedule(entry.instance, time_limit_s=time_limit, rng=np.random.default_rng(seed))
    report = _judged(found, entry, result)
    report |= {"scheduler": spec.name, "information": spec.information, "seed": seed}
    if result.solution is not None:
        if out is not None:
            write_text(out, result.solution.to_json())
        if gantt is not None:
            found.render(entry.instance, result.solution, gantt)
    if as_json:
        emit_json(report)
    else:
        _print_report(report)
    raise typer.Exit(0 if report["checked"] else 1)


def _warm_up(family: Any, method: Any, instance: Any) -> None:
    """Compile kernels and load weights on a small instance, so that they do not eat into the time limit."""
    import numpy as np

    known = [entry.instance for entry in family.suites["demo"].load()] if "demo" in family.suites else []
    known = [other for other in known if family.problem_of(other) == family.problem_of(instance)]
    smallest = min([*known, instance], key=lambda item: len(item.to_json()))
    method.schedule(smallest, time_limit_s=_WARM_UP_LIMIT_S, rng=np.random.default_rng(0))


def _judged(family: Any, entry: Any, result: Any) -> dict[str, Any]:
    """Return what the checker, and not the scheduler, says about a result."""
    violations = ["no solution"] if result.solution is None else family.check(entry.instance, result.solution)
    values = {} if violations else family.objectives(entry.instance, result.solution)
    value = values.get(family.objective_of(entry.instance))
    if value is not None and result.objective is not None and not math.isclose(value, result.objective):
        violations = [f"the scheduler reports {result.objective}, its solution has {value}"]
    bounds = [
        ("scheduler", result.lower_bound),
        *((bound.name, bound.value) for bound in family.bounds(entry.instance)),
    ]
    bound_name, bound = max(
        ((name, limit) for name, limit in bounds if limit is not None), key=lambda item: item[1], default=("none", None)
    )
    return {
        "family": family.name,
        "instance": entry.instance.name,
        "status": result.status,
        "checked": not violations,
        "violations": violations,
        "objective": value,
        "objectives": values,
        "lower_bound": bound,
        "lower_bound_from": bound_name,
        "gap": _gap(value, bound),
        "best_known": entry.best_known,
        "best_known_is_optimal": entry.optimal,
        "gap_to_best_known": _gap(value, entry.best_known),
        "runtime_s": round(result.runtime_s, 6),
        "decisions": result.decisions,
    }


def _gap(value: float | None, reference: float | None) -> float | None:
    if value is None or reference is None:
        return None
    if reference == 0:
        return 0.0 if value == 0 else None
    return (value - reference) / reference


def _print_report(report: dict[str, Any]) -> None:
    fields = [
        ("instance", report["instance"]),
        ("scheduler", f"{report['scheduler']} ({report['information']})"),
        ("status", report["status"]),
        ("checked", "valid" if report["checked"] else "INVALID"),
        *((name, number(value)) for name, value in report["objectives"].items()),
        ("lower bound", f"{number(report['lower_bound'])} ({report['lower_bound_from']})"),
        ("gap to bound", percent(report["gap"])),
    ]
    if report["best_known"] is not None:
        kind = "optimal" if report["best_known_is_optimal"] else "best known"
        fields.append((kind, number(report["best_known"])))
        fields.append((f"gap to {kind}", percent(report["gap_to_best_known"])))
    fields.append(("time", f"{report['runtime_s']:.3f} s"))
    print_fields(fields)
    for violation in report["violations"]:
        print(f"violation: {violation}")


def validate(
    family: FamilyName,
    instance: Annotated[str, typer.Argument(help="As for solve: file, FILE#NAME, SUITE/NAME, or NAME.")],
    solution: Annotated[Path, typer.Argument(help="Solution JSON, as written by solve --out.")],
    as_json: JsonFlag = False,
) -> None:
    """Check a solution against the problem's definition and print every violation in words.

    Exit code 1 if there is any. The checker shares no code with the simulator or the schedulers.

    For example:

        schedrl validate jobshop ft06 solution.json
    """
    from schedrl.cli.names import find_family, find_instance

    found = find_family(family)
    entry = find_instance(found, instance)
    answer = found.solution_type.from_json(_read(solution), source=str(solution))
    violations = found.check(entry.instance, answer)
    values = {} if violations else found.objectives(entry.instance, answer)
    if as_json:
        emit_json(
            {
                "family": family,
                "instance": entry.instance.name,
                "valid": not violations,
                "violations": violations,
                "objectives": values,
            }
        )
    elif violations:
        print("INVALID")
        for violation in violations:
            print(f"  {violation}")
    else:
        print_fields([("checked", "valid"), *((name, number(value)) for name, value in values.items())])
    raise typer.Exit(1 if violations else 0)


def explain(
    family: FamilyName,
    instance: Annotated[str, typer.Argument(help="As for solve: file, FILE#NAME, SUITE/NAME, or NAME.")],
    solution: Annotated[Path, typer.Argument(help="Solution JSON, as written by solve --out.")],
    subject: Annotated[
        str | None, typer.Option("--subject", "--buffer", help="Part of the solution, such as a buffer; all in short.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say why a valid solution is as it is, such as why a buffer stayed in slow memory.

    Exit code 1 if the checker rejects the solution, whose violations are printed instead.

    For example:

        schedrl explain memmap program.json plan.json --buffer conv1
    """
    from schedrl.cli.names import find_family, find_instance

    found = find_family(family)
    if found.explain is None:
        raise ConfigError(f"family {found.name} has no explanations")
    entry = find_instance(found, instance)
    answer = found.solution_type.from_json(_read(solution), source=str(solution))
    violations = found.check(entry.instance, answer)
    lines = [] if violations else found.explain(entry.instance, answer, subject)
    if as_json:
        report = {"family": family, "instance": entry.instance.name, "subject": subject}
        emit_json({**report, "valid": not violations, "violations": violations, "explanation": lines})
    else:
        for line in ["INVALID", *(f"  {violation}" for violation in violations)] if violations else lines:
            print(line)
    raise typer.Exit(1 if violations else 0)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise SolutionError(f"{path}: not UTF-8 text, expected solution JSON") from None
