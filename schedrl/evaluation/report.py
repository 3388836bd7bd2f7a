"""The comparison as one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schedrl.atomic import write_text
from schedrl.evaluation import tables
from schedrl.evaluation.gallery import Picture, is_learned
from schedrl.evaluation.results import ResultRow
from schedrl.evaluation.summary import Pair, SchedulerSummary, Summary
from schedrl.plotting.axes import inline_svg, number
from schedrl.plotting.gantt import gantt_script
from schedrl.plotting.lines import line_svg
from schedrl.plotting.profile import profile_chart

__all__ = ["Cell", "write_report"]

# Curves beyond this many cannot be told apart.
_MOST_CURVES = 10
# Pictures beyond this total stay files beside the report, so that a phone can still open it.
_INLINE_BYTES = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One table cell: its text, the number that sorting uses, and a hint on hover."""

    text: str
    key: float
    hint: str = ""
    best: bool = False


def write_report(
    path: Path,
    summary: Summary,
    rows: Sequence[ResultRow],
    sizes: Mapping[str, str],
    pictures: Sequence[Picture],
    facts: Mapping[str, str],
) -> None:
    """Write ``report.html``; ``rows`` are those of the primary objective, ``facts`` the provenance lines."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("schedrl.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": tables.percent,
        "interval": tables.interval_text,
        "seconds": tables.seconds,
        "short": tables.short_name,
        "number": number,
    }
    template = environment.get_template("report.html.j2")
    write_text(path, template.render(_context(summary, rows, sizes, pictures, facts)))


def _context(
    summary: Summary,
    rows: Sequence[ResultRow],
    sizes: Mapping[str, str],
    pictures: Sequence[Picture],
    facts: Mapping[str, str],
) -> dict[str, Any]:
    from markupsafe import Markup

    by_run: dict[tuple[str, str], list[ResultRow]] = {}
    for row in rows:
        by_run.setdefault((row.instance, row.scheduler), []).append(row)
    gaps = [item.mean_gap.high for item in summary.schedulers if item.mean_gap]
    return {
        "summary": summary,
        "headline": tables.headline(summary),
        "information": {item.information for item in summary.schedulers},
        "scale": max([0.001, *gaps]),
        "pairs": {(pair.first, pair.second): _pair_cell(pair) for pair in summary.pairs},
        "profile": _profile(summary, by_run, Markup),
        "instances": [_instance(name, sizes[name], summary, by_run) for name in summary.instances],
        "problems": [row for row in rows if row.status != "ok" or row.message],
        "pictures": _inlined(pictures, Markup),
        "gantt_script": Markup(gantt_script()),
        "facts": facts,
    }


def _pair_cell(pair: Pair) -> Cell:
    score = pair.score
    hint = "" if pair.p_value is None else f"Wilcoxon signed-rank p = {pair.p_value:.2g}"
    text = f"{score.wins} / {score.ties} / {score.losses}"
    return Cell(text=text, key=score.wins - score.losses, hint=hint, best=score.wins > score.losses)


def _profile(summary: Summary, by_run: Mapping[tuple[str, str], list[ResultRow]], markup: type) -> Any:
    ranked = [item for item in summary.schedulers if item.mean_gap]
    learned = [item for item in ranked if is_learned(item.name)]
    shown = [*ranked[: max(_MOST_CURVES - len(learned), 1)], *learned]
    names = [item.name for item in ranked if item in shown]
    curves: dict[str, list[float]] = {}
    for name in names:
        means = (_mean([row.gap for row in by_run.get((instance, name), [])]) for instance in summary.instances)
        curves[tables.short_name(name)] = [gap for gap in means if gap is not None]
    if not curves:
        return ""
    return markup(inline_svg(line_svg(profile_chart(curves, len(summary.instances)))))


def _instance(
    name: str, size: str, summary: Summary, by_run: Mapping[tuple[str, str], list[ResultRow]]
) -> dict[str, Any]:
    runs = [by_run.get((name, item.name), []) for item in summary.schedulers]
    means = [_mean([row.value for row in of_scheduler]) for of_scheduler in runs]
    best = min((value for value in means if value is not None), default=None)
    first = next((row for of_scheduler in runs for row in of_scheduler), None)
    return {
        "name": name,
        "size": size,
        "reference": None if first is None else first.reference,
        "kind": "" if first is None else first.reference_kind,
        "cells": [
            _run_cell(item, of_scheduler, value, value is not None and value == best)
            for item, of_scheduler, value in zip(summary.schedulers, runs, means, strict=True)
        ],
    }


def _run_cell(item: SchedulerSummary, runs: Sequence[ResultRow], value: float | None, best: bool) -> Cell:
    if value is None:
        hint = runs[0].message if runs else "not run"
        return Cell(text=runs[0].status if runs else "-", key=float("inf"), hint=hint)
    gap = _mean([row.gap for row in runs])
    hint = f"{item.name}: {number(value)} in {tables.seconds(_mean([row.wall_s for row in runs]))} s"
    solved = sum(row.value is not None for row in runs)
    if len(runs) > 1:
        hint += f", mean of {solved} of {len(runs)} seeds"
    text = number(value) if gap is None else tables.percent(gap)
    return Cell(text=text, key=value if gap is None else gap, hint=hint, best=best)


def _inlined(pictures: Sequence[Picture], markup: type) -> dict[str, list[dict[str, Any]]]:
    shown: dict[str, list[dict[str, Any]]] = {}
    budget = _INLINE_BYTES
    # The solutions themselves come first, in the page and in what still fits it.
    for picture in sorted(pictures, key=lambda picture: picture.title != ""):
        svg = "" if picture.problem else inline_svg(picture.path.read_text(encoding="utf-8"))
        budget -= len(svg)
        item = {"picture": picture, "svg": markup(svg) if budget >= 0 else "", "file": _link(picture.path)}
        shown.setdefault(picture.row.instance, []).append(item)
    return shown


def _link(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None
