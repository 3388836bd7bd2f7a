"""Gantt charts of any family: bars in lanes, as SVG, as an interactive HTML page, or through matplotlib."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.atomic import replacing, write_text
from schedrl.errors import ConfigError
from schedrl.plotting.axes import SVG_NAMESPACE, inline_svg, nice_ticks, number, svg_text
from schedrl.plotting.palette import colour, ink_on

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GanttChart", "Mark", "gantt_figure", "gantt_fragment", "gantt_script", "gantt_svg", "save_gantt"]

# All lengths below are user units of the SVG view box; the page scales the picture to its width.
_WIDTH = 1000.0
_TOP = 34.0
_BOTTOM = 40.0
_RIGHT = 14.0
_GLYPH = 6.2  # mean advance of the 11-unit font; decides whether a label fits its bar


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A vertical line across all lanes: a makespan, a deadline."""

    time: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GanttChart:
    """What to draw: N bars, each in a lane and of a group; bars of one group share a colour.

    Raises:
        ConfigError: the bar arrays differ in length, or a lane or group index has no name.
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

    def __post_init__(self) -> None:
        sizes = {len(self.lane), len(self.start), len(self.length), len(self.group), len(self.label)}
        if len(sizes) != 1:
            raise ConfigError(f"Gantt chart {self.title!r}: bar arrays of unequal lengths {sorted(sizes)}")
        for index, names, field in ((self.lane, self.lanes, "lane"), (self.group, self.groups, "group")):
            if len(index) and not (index.min() >= 0 and index.max() < len(names)):
                raise ConfigError(f"Gantt chart {self.title!r}: field {field}: expected 0 to {len(names) - 1}")

    @property
    def span(self) -> tuple[float, float]:
        """First and last time shown: 0 or the first start, and the last end or mark."""
        ends = [*(self.start + self.length).tolist(), *(mark.time for mark in self.marks)]
        low = min([0.0, *self.start.tolist()])
        return low, max([low, *ends]) or 1.0


def gantt_svg(chart: GanttChart) -> str:
    """Return the chart as one SVG text of about 150 bytes per bar, readable without scripts.

    ``gantt_script`` makes every such picture of a page zoom, pan and highlight.
    """
    row = 22.0 if len(chart.lanes) <= 20 else max(8.0, 440.0 / len(chart.lanes))
    left = 16.0 + _GLYPH * max([2, *map(len, chart.lanes)])
    width, height = _WIDTH - left - _RIGHT, row * max(len(chart.lanes), 1)
    low, high = chart.span
    scale = width / ((high - low) or 1.0)
    parts = [
        f'<svg{SVG_NAMESPACE} class="schedrl-gantt" viewBox="0 0 {_WIDTH:g} {_TOP + height + _BOTTOM:g}" '
        f'width="100%" font-family="system-ui,sans-serif" font-size="11" fill="#222" role="img" '
        f'aria-label="{escape(chart.title)}" data-low="{low!r}" data-high="{high!r}">',
        svg_text(left, 16, chart.title, extra=' font-size="14" font-weight="600"'),
        *_lane_rows(chart, left, width, row),
        f'<svg class="plot" x="{left:g}" y="{_TOP:g}" width="{width:g}" height="{height:g}" overflow="hidden">',
        f'<g class="bars" stroke="#fff" stroke-width="0.4">{"".join(_bars(chart, low, scale, row))}</g>',
        f'<g class="labels" pointer-events="none" font-size="{min(11.0, row - 2):g}">',
        *_labels(chart, low, scale, row),
        "</g></svg>",
        f'<g class="ticks" transform="translate({left:g} {_TOP + height:g})" data-width="{width:g}">',
        *(_tick((time - low) * scale, number(time)) for time in nice_ticks(low, high)),
        "</g>",
        svg_text(left + width / 2, _TOP + height + 34, chart.time_label, anchor="middle"),
        f'<g class="marks" transform="translate({left:g} {_TOP:g})">',
        *(_mark(mark, (mark.time - low) * scale, width, height) for mark in chart.marks),
        "</g></svg>",
    ]
    return "".join(parts)


def gantt_script() -> str:
    """Return the JavaScript that makes every ``svg.schedrl-gantt`` of a page interactive."""
    return resources.files("schedrl.plotting").joinpath("templates/gantt.js").read_text(encoding="utf-8")


def gantt_fragment(chart: GanttChart) -> str:
    """Return a self-contained interactive HTML fragment: hover shows a bar, drag pans, buttons and ctrl+wheel zoom."""
    return f'<figure style="margin:0">{inline_svg(gantt_svg(chart))}</figure><script>{gantt_script()}</script>'


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
    for mark in chart.marks:
        axes.axvline(mark.time, color="#222222", linewidth=1.2, linestyle="--")
    axes.set(
        title=chart.title,
        xlabel=chart.time_label,
        xlim=(low, high + 0.01 * (high - low)),
        ylim=(len(chart.lanes) - 0.4, -0.6),
    )
    axes.set_yticks(range(len(chart.lanes)), chart.lanes)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def save_gantt(chart: GanttChart, path: Path) -> None:
    """Write the chart as a ``.png`` (matplotlib), ``.svg`` or interactive ``.html`` file, by the path's suffix.

    Raises:
        ConfigError: another suffix.
    """
    if path.suffix == ".svg":
        write_text(path, gantt_svg(chart))
    elif path.suffix == ".html":
        write_text(path, _page(chart))
    elif path.suffix == ".png":
        figure = gantt_figure(chart)
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=150)
    else:
        raise ConfigError(f"{path}: suffix {path.suffix!r} is not a picture format; expected .png, .svg or .html")


def _page(chart: GanttChart) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(chart.title)}</title></head>"
        f'<body style="margin:1rem;background:#fff">{gantt_fragment(chart)}</body></html>'
    )


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
