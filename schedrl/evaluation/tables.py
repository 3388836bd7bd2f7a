"""A comparison's tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schedrl.evaluation.statistics import Interval
from schedrl.evaluation.summary import SchedulerSummary, Summary

__all__ = ["headline", "interval_text", "percent", "print_summary", "seconds", "short_name"]


def print_summary(summary: Summary, console: Console) -> None:
    """Print the ranking, and the mean gap by size group where there is more than one."""
    console.print(Text(headline(summary)))
    columns = ["scheduler", "sees", "solved", "mean gap", "95 % interval", "IQM", "worst", "s per run"]
    console.print(_table(columns, [_ranking_row(item) for item in summary.schedulers]))
    if len(summary.groups) > 1:
        console.print(Text("Mean gap by size, %; * = not every instance solved"))
        columns = ["scheduler", *summary.groups, "all"]
        console.print(_table(columns, [_group_row(item, summary) for item in summary.schedulers]))


def headline(summary: Summary) -> str:
    """Return one sentence: what was compared, on how much, against which references."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in summary.reference_kinds.items())
    where = f"{summary.family}/{summary.suite}" if summary.suite else summary.family
    count = len(summary.instances)
    return f"{where}: {summary.objective} on {count} instance{'s' * (count != 1)}; references: {kinds or 'none'}"


def percent(gap: float | None, digits: int = 1) -> str:
    """Return a fraction in percent without the sign, ``-`` for None."""
    return "-" if gap is None else f"{100 * gap:.{digits}f}"


def interval_text(interval: Interval | None) -> str:
    """Return the ends of an interval in percent."""
    return "-" if interval is None else f"{percent(interval.low)} to {percent(interval.high)}"


def seconds(value: float | None) -> str:
    """Return a time with two or three significant digits."""
    return "-" if value is None else f"{value:.1f}" if value >= 10 else f"{value:.2g}"


def short_name(scheduler: str) -> str:
    """Return ``scheduler`` of ``family/scheduler``."""
    return scheduler.partition("/")[2] or scheduler


def _value(interval: Interval | None) -> float | None:
    return None if interval is None else interval.value


def _ranking_row(item: SchedulerSummary) -> list[str]:
    return [
        short_name(item.name),
        item.information,
        f"{item.solved}/{item.instances}",
        percent(_value(item.mean_gap), 2),
        interval_text(item.mean_gap),
        percent(_value(item.iqm_gap), 2),
        percent(item.worst_gap),
        seconds(item.mean_wall_s),
    ]


def _group_row(item: SchedulerSummary, summary: Summary) -> list[str]:
    star = "*" * (item.solved < item.instances)
    cells = [percent(item.group_gap[group]) for group in summary.groups]
    return [short_name(item.name) + star, *cells, percent(_value(item.mean_gap))]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for k, column in enumerate(columns):
        table.add_column(column, justify="left" if k == 0 or column == "sees" else "right", no_wrap=k == 0)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: names with square brackets are not markup
    return table
