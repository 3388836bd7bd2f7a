"""Gantt charts of any family: bars in lanes, as SVG, as an interactive HTML page, or through matplotlib."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.errors import ConfigError
from schedrl.plotting.axes import SVG_NAMESPACE, nice_ticks, number, svg_text
from schedrl.plotting.files import interactive, save_picture
from schedrl.plotting.palette import colour, ink_on

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Arrow",
    "Event",
    "GanttChart",
    "Mark",
    "gantt_figure",
    "gantt_fragment",
    "gantt_script",
    "gantt_svg",
    "save_gantt",
]

# All lengths below are user units of the SVG view box; the page scales the picture to its width.
_WIDTH = 1000.0
_TOP = 34.0
_BOTTOM = 40.0
_RIGHT = 14.0
_GLYPH = 6.2  # mean advance of the 11-unit font; decides whether a label fits its bar
_LEGEND_ROW = 18.0
_HEAD, _HEAD_ANGLE = 5.0, 0.42  # length of an arrow's barbs, and their angle from its shaft in radians


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A vertical line across all lanes: a makespan, a deadline."""

    time: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrow:
    """Something that moves between the lanes of two bars, from a time to a time: data on a link."""

    source: int  # index of a bar
    target: int  # index of a bar
    start: float  # time
    end: float  # time


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A small mark below the lanes, in the colour of a group: a job arrives, a deadline passes."""

    time: float
    group: int
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GanttChart:
    """What to draw: N bars, each in a lane and of a group; bars of one group share a colour.

    ``legend`` lists the groups below the chart, which helps where the bars' labels do not tell them.

    Raises:
        ConfigError: the bar arrays differ in length, or a lane, group or bar index has no name.
    """

    title: str
    lanes: tuple[str, ...]
    groups: tuple[str, ...]
    lane: I32  # (N,) index into lanes
    start: F64  # (N,) time
    length: F64  # (N,) time, >= 0
    group: I32  # (N,) index into groups
    label: tuple[str, ...]  # (N,) short text inside the bar
    marks: tuple[Mark, ...] = ()
    time_label: str = "time"
    arrows: tuple[Arrow, ...] = ()
    events: tuple[Event, ...] = ()
    legend: bool = False

    def __post_init__(self) -> None:
        sizes = {len(self.lane), len(self.start), len(self.length), len(self.group), len(self.label)}
        if len(sizes) != 1:
            raise ConfigError(f"Gantt chart {self.title!r}: bar arrays of unequal lengths {sorted(sizes)}")
        for index, names, field in ((self.lane, self.lanes, "lane"), (self.group, self.groups, "group")):
            if len(index) and not (index.min() >= 0 and index.max() < len(names)):
                raise ConfigError(f"Gantt chart {self.title!r}: field {field}: expected 0 to {len(names) - 1}")
        ends = [bar for arrow in self.arrows for bar in (arrow.source, arrow.target)]
        of_events = [event.group for event in self.events]
        for numbers, count, field in ((ends, len(self.label), "arrows"), (of_events, len(self.groups), "events")):
            if numbers and not (min(numbers) >= 0 and max(numbers) < count):
                raise ConfigError(f"Gantt chart {self.title!r}: field {field}: expected 0 to {count - 1}")

    @property
    def span(self) -> tuple[float, float]:
        """First and last time shown: 0 or the first start, and the last end or mark."""
        others = [mark.time for mark in self.marks] + [event.time for event in self.events]
        ends = [*(self.start + self.length).tolist(), *others]
        low = min([0.0, *self.start.tolist()])
        return low, max([low, *ends]) or 1.0


def gantt_svg(chart: GanttChart) -> str:
    """Return the chart as one SVG text of about 150 bytes per bar, readable without scripts.

    ``gantt_script`` makes every such picture of a page zoom, pan and highlight.
    """
    row = _row_height(chart)
    left = 16.0 + _GLYPH * max([2, *map(len, chart.lanes)])
    width, height = _WIDTH - left - _RIGHT, row * max(len(chart.lanes), 1)
    low, high = chart.span
    scale = width / ((high - low) or 1.0)
    legend = _legend(chart, left, _TOP + height + _BOTTOM + 12)
    total = _TOP + height + _BOTTOM + _LEGEND_ROW * (legend[-1][0] if legend else 0)
    parts = [
        f'<svg{SVG_NAMESPACE} class="schedrl-gantt" viewBox="0 0 {_WIDTH:g} {total:g}" '
        f'width="100%" font-family="system-ui,sans-serif" font-size="11" fill="#222" role="img" '
        f'aria-label="{escape(chart.title)}" data-low="{low!r}" data-high="{high!r}">',
        svg_text(left, 16, chart.title, extra=' font-size="14" font-weight="600"'),
        *_lane_rows(chart, left, width, row),
        f'<svg class="plot" x="{left:g}" y="{_TOP:g}" width="{width:g}" height="{height:g}" overflow="hidden">',
        f'<g class="bars" stroke="#fff" stroke-width="0.4">{"".join(_bars(chart, low, scale, row))}</g>',
        f'<g class="labels" pointer-events="none" font-size="{min(11.0, row - 2):g}">',
        *_labels(chart, low, scale, row),
        f"</g>{_arrows(chart, low, scale, row)}</svg>",
        f'<g class="ticks" transform="translate({left:g} {_TOP + height:g})" data-width="{width:g}">',
        *(_tick((time - low) * scale, number(time)) for time in nice_ticks(low, high)),
        "</g>",
        svg_text(left + width / 2, _TOP + height + 34, chart.time_label, anchor="middle"),
        f'<g class="events" transform="translate({left:g} {_TOP + height:g})" stroke="#fff" stroke-width="0.5">',
        *(_event(event, (event.time - low) * scale) for event in chart.events),
        f'</g><g class="marks" transform="translate({left:g} {_TOP:g})">',
        *(_mark(mark, (mark.time - low) * scale, width, height) for mark in chart.marks),
        f"</g>{''.join(text for _, text in legend)}</svg>",
    ]
    return "".join(parts)


def gantt_script() -> str:
    """Return the JavaScript that makes every ``svg.schedrl-gantt`` of a page interactive."""
    return resources.files("schedrl.plotting").joinpath("templates/gantt.js").read_text(encoding="utf-8")


def gantt_fragment(chart: GanttChart) -> str:
    """Return a self-contained interactive HTML fragment: hover shows a bar, drag pans, buttons and ctrl+wheel zoom."""
    return interactive(gantt_svg(chart), gantt_script())


def gantt_figure(chart: GanttChart) -> Figure:
    """Return the chart as a matplotlib figure, for notebooks and bitmap files."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, min(1.6 + 0.3 * len(chart.lanes), 16)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    low, high = chart.span
    axes.barh(
        chart.lane,
        chart.length,
        left=chart.start,
        height=0.86,
        color=[colour(int(group)) for group in chart.group],
        edgecolor="white",
        linewidth=0.4,
    )
    for bar in np.flatnonzero(chart.length * 130 >= (high - low) * np.array([1 + len(text) for text in chart.label])):
        ink = ink_on(colour(int(chart.group[bar])))
        centre = chart.start[bar] + chart.length[bar] / 2
        axes.text(centre, chart.lane[bar], chart.label[bar], ha="center", va="center", fontsize=6, color=ink)
    _draw_arrows(axes, chart)
    bottom = len(chart.lanes) - 0.45
    for event in chart.events:
        axes.plot(event.time, bottom, marker="^", markersize=4, color=colour(event.group), clip_on=False)
    for mark in chart.marks:
        axes.axvline(mark.time, color="#222222", linewidth=1.2, linestyle="--")
        axes.text(mark.time, -0.65, mark.label, ha="right", va="bottom", fontsize=7, clip_on=False)
    axes.set_title(chart.title, pad=16)
    axes.set(
        xlabel=chart.time_label,
        xlim=(low, high + 0.01 * (high - low)),
        ylim=(len(chart.lanes) - 0.4, -0.6),
    )
    axes.set_yticks(range(len(chart.lanes)), chart.lanes)
    axes.spines[["top", "right"]].set_visible(False)
    if chart.legend:
        from matplotlib.patches import Patch

        patches = [Patch(color=colour(k), label=name) for k, name in enumerate(chart.groups)]
        figure.legend(handles=patches, loc="outside lower center", ncols=6, fontsize=7, frameon=False)
    return figure


def save_gantt(chart: GanttChart, path: Path) -> None:
    """Write the chart as a ``.png`` (matplotlib), ``.svg`` or interactive ``.html`` file, by the path's suffix.

    Raises:
        ConfigError: another suffix.
    """
    save_picture(
        path,
        title=chart.title,
        svg=lambda: gantt_svg(chart),
        figure=lambda: gantt_figure(chart),
        script=gantt_script() if path.suffix == ".html" else "",
    )


def _row_height(chart: GanttChart) -> float:
    if chart.arrows and len(chart.lanes) <= 8:
        return 34.0  # few lanes leave room to see where arrows lead
    return 22.0 if len(chart.lanes) <= 20 else max(8.0, 440.0 / len(chart.lanes))


def _lane_rows(chart: GanttChart, left: float, width: float, row: float) -> list[str]:
    rows = []
    size = f' font-size="{min(11.0, row):g}"'
    for k, name in enumerate(chart.lanes):
        top = _TOP + k * row
        rows.append(svg_text(left - 6, top + row * 0.5 + min(4.0, row * 0.35), name, anchor="end", extra=size))
        if k % 2 == 0:
            rows.append(f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{row:g}" fill="#f2f4f6"/>')
    return rows


def _bars(chart: GanttChart, low: float, scale: float, row: float) -> list[str]:
    bars = []
    for k in range(len(chart.label)):
        start, length, group = float(chart.start[k]), float(chart.length[k]), int(chart.group[k])
        # A zero-length bar still needs a sliver to be seen and touched.
        bars.append(
            f'<rect x="{(start - low) * scale:.2f}" y="{chart.lane[k] * row + 1:g}" '
            f'width="{max(length * scale, 0.6):.2f}" height="{row - 2:g}" fill="{colour(group)}" '
            f'data-g="{group}" data-l="{escape(chart.label[k])}"><title>'
            f"{escape(chart.groups[group])} · {escape(chart.label[k])} · {escape(chart.lanes[int(chart.lane[k])])} · "
            f"{number(start)} to {number(start + length)} ({number(length)})</title></rect>"
        )
    return bars


def _labels(chart: GanttChart, low: float, scale: float, row: float) -> list[str]:
    texts = []
    for k, label in enumerate(chart.label):
        if chart.length[k] * scale >= _GLYPH * len(label) + 4:
            centre = (float(chart.start[k]) + float(chart.length[k]) / 2 - low) * scale
            ink = ink_on(colour(int(chart.group[k])))
            extra = "" if ink == "#000000" else f' fill="{ink}"'
            texts.append(svg_text(centre, chart.lane[k] * row + row * 0.5 + 4, label, anchor="middle", extra=extra))
    return texts


def _tick(x: float, text: str) -> str:
    label = svg_text(0, 17, text, anchor="middle")
    return f'<g transform="translate({x:.2f})"><path d="M0 0v5" stroke="#666"/>{label}</g>'


def _mark(mark: Mark, x: float, width: float, height: float) -> str:
    anchor = "end" if x > width / 2 else "start"
    return (
        f'<g data-x="{x:.2f}" transform="translate({x:.2f})">'
        f'<path d="M0 -8V{height:g}" stroke="#222" stroke-width="1.4" stroke-dasharray="5 3"/>'
        f"{svg_text(-4 if anchor == 'end' else 4, -5, mark.label, anchor=anchor)}</g>"
    )


def _event(event: Event, x: float) -> str:
    return (
        f'<path data-x="{x:.2f}" transform="translate({x:.2f})" d="M0 0l3.5 7h-7z" fill="{colour(event.group)}">'
        f"<title>{escape(event.label)}</title></path>"
    )


def _arrow_ends(chart: GanttChart, arrow: Arrow, row: float) -> tuple[float, float]:
    """Return the heights of an arrow's ends: off the middle of its lanes, towards each other."""
    first, last = int(chart.lane[arrow.source]), int(chart.lane[arrow.target])
    inset = 0.25 * ((last > first) - (last < first))
    return (first + 0.5 + inset) * row, (last + 0.5 - inset) * row


def _arrows(chart: GanttChart, low: float, scale: float, row: float) -> str:
    """Return the arrows with their ends as data, from which the script draws them anew at another zoom."""
    if not chart.arrows:
        return ""
    parts = ['<g class="arrows" pointer-events="none" fill="none" stroke="#222" stroke-opacity="0.6">']
    for arrow in chart.arrows:
        y0, y1 = _arrow_ends(chart, arrow, row)
        x0, x1 = (arrow.start - low) * scale, (arrow.end - low) * scale
        path = _arrow_path(x0, y0, x1, y1)
        parts.append(
            f'<path d="{path}" data-a="{x0:.1f} {y0:g} {x1:.1f} {y1:g}" data-e="{arrow.source} {arrow.target}"/>'
        )
    return "".join([*parts, "</g>"])


def _arrow_path(x0: float, y0: float, x1: float, y1: float) -> str:
    back = math.atan2(y0 - y1, x0 - x1)
    barbs = [
        (x1 + _HEAD * math.cos(back + turn), y1 + _HEAD * math.sin(back + turn)) for turn in (_HEAD_ANGLE, -_HEAD_ANGLE)
    ]
    head = "L{:.1f} {:.1f}M{:.1f} {:.1f}".format(*barbs[0], *barbs[1])
    return f"M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}{head}L{x1:.1f} {y1:.1f}"


def _draw_arrows(axes: Axes, chart: GanttChart) -> None:
    style = {"arrowstyle": "->", "linewidth": 0.7, "color": "#222222", "alpha": 0.6, "shrinkA": 0.0, "shrinkB": 0.0}
    for arrow in chart.arrows:
        y0, y1 = _arrow_ends(chart, arrow, 1.0)
        axes.annotate("", xy=(arrow.end, y1 - 0.5), xytext=(arrow.start, y0 - 0.5), arrowprops=style)


def _legend(chart: GanttChart, left: float, top: float) -> list[tuple[int, str]]:
    """Return the legend's entries, each with the number of its row, counted from 1."""
    entries: list[tuple[int, str]] = []
    x, line = left, 1
    for group, name in enumerate(chart.groups if chart.legend else ()):
        width = 30.0 + _GLYPH * len(name)
        if x + width > _WIDTH - _RIGHT and x > left:
            x, line = left, line + 1
        y = top + (line - 1) * _LEGEND_ROW
        swatch = f'<rect x="{x:g}" y="{y - 9:g}" width="12" height="10" fill="{colour(group)}"/>'
        entries.append((line, swatch + svg_text(x + 17, y, name)))
        x += width
    return entries
