"""Memory maps: rectangles of time and offset, a panel per memory, as SVG, as a page that zooms, or by matplotlib."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.errors import ConfigError
from schedrl.plotting.axes import SVG_NAMESPACE, inline_svg, nice_ticks, number, svg_text
from schedrl.plotting.files import save_picture
from schedrl.plotting.gantt import gantt_script
from schedrl.plotting.palette import colour, ink_on

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["HATCHES", "Level", "MapPanel", "MemoryChart", "map_figure", "map_svg", "nice_sizes", "save_map"]

HATCHES = ("", "rising", "falling")
"""surface of a rectangle: plain, or one that lies over a plain one to mark a part of it"""

# User units of the SVG view box; the page scales the picture to its width.
_WIDTH = 1000.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 66.0, 16.0, 36.0, 54.0
_HEIGHT, _HEIGHT_OF_SEVERAL = 420.0, 280.0
_GLYPH, _LINE = 6.2, 11.0  # mean advance and height of the labels' font
_LEGEND_ROW = 18.0
_TICKS = 12
_LEAST_LABEL = 3  # a label is cut rather than left out down to so many characters
_PATTERNS = (
    '<defs><pattern id="schedrl-rising" width="5" height="5" patternUnits="userSpaceOnUse">'
    '<path d="M-1 1l2 -2M0 5l5 -5M4 6l2 -2" stroke="#000" stroke-opacity="0.65" stroke-width="0.9"/></pattern>'
    '<pattern id="schedrl-falling" width="6" height="6" patternUnits="userSpaceOnUse">'
    '<path d="M-1 5l2 2M0 0l6 6M5 -1l2 2" stroke="#fff" stroke-opacity="0.9" stroke-width="1.2"/></pattern></defs>'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A horizontal line across a panel: a capacity, a peak, a bound."""

    value: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MapPanel:
    """One memory: N rectangles, drawn in this order, below a top of the offset axis.

    Raises:
        ConfigError: the arrays differ in length, a hatch or the top is out of range.
    """

    title: str
    start: F64  # (N,) time
    length: F64  # (N,) time
    low: F64  # (N,) offset
    height: F64  # (N,) offset
    group: I32  # (N,) index into the chart's groups
    hatch: I32  # (N,) index into HATCHES
    label: tuple[str, ...]  # (N,) text inside the rectangle where it fits, empty for none
    note: tuple[str, ...]  # (N,) what the page shows on hover
    top: float  # offset
    levels: tuple[Level, ...] = ()

    def __post_init__(self) -> None:
        arrays = (self.start, self.length, self.low, self.height, self.group, self.hatch, self.label, self.note)
        if len({len(values) for values in arrays}) != 1:
            raise ConfigError(f"memory map {self.title!r}: arrays of unequal lengths {[len(a) for a in arrays]}")
        if len(self.hatch) and not (self.hatch.min() >= 0 and self.hatch.max() < len(HATCHES)):
            raise ConfigError(f"memory map {self.title!r}: field hatch: expected 0 to {len(HATCHES) - 1}")
        if not self.top > 0:
            raise ConfigError(f"memory map {self.title!r}: field top: {self.top}, expected a positive offset")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryChart:
    """Panels over the same span of time.

    ``clock`` gives a second scale below the first where time is counted in steps: the value at each step.

    Raises:
        ConfigError: no panel, a group without name, or a clock that does not cover the span.
    """

    title: str
    panels: tuple[MapPanel, ...]
    groups: tuple[str, ...]
    hatches: tuple[str, ...] = ("", "", "")
    """legend texts by hatch; the first is not shown, an empty one is left out"""
    span: tuple[float, float]
    time_label: str = "time"
    offset_label: str = "offset"
    clock: F64 | None = None  # (span[1] + 1,)
    clock_label: str = ""

    def __post_init__(self) -> None:
        if not self.panels:
            raise ConfigError(f"memory map {self.title!r}: field panels: empty, expected at least one")
        for panel in self.panels:
            if len(panel.group) and not (panel.group.min() >= 0 and panel.group.max() < len(self.groups)):
                raise ConfigError(f"memory map {self.title!r}: field group: expected 0 to {len(self.groups) - 1}")
        if not self.span[1] > self.span[0] or (self.clock is not None and len(self.clock) <= self.span[1]):
            raise ConfigError(f"memory map {self.title!r}: field span: {self.span}, expected more, within the clock")


def map_svg(chart: MemoryChart) -> str:
    """Return the chart as one SVG text, readable without scripts."""
    parts, y = [], 0.0
    for number_of in range(len(chart.panels)):
        text, height = _panel_svg(chart, number_of)
        parts.append(f'<svg y="{y:g}" width="{_WIDTH:g}" height="{height:g}">{inline_svg(text)}</svg>')
        y += height
    return (
        f'<svg{SVG_NAMESPACE} class="schedrl-memory-map" viewBox="0 0 {_WIDTH:g} {y:g}" width="100%" role="img" '
        f'aria-label="{escape(chart.title)}">{"".join(parts)}</svg>'
    )


def map_figure(chart: MemoryChart) -> Figure:
    """Return the chart as a matplotlib figure, for notebooks and bitmap files."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    count = len(chart.panels)
    figure = Figure(figsize=(11, (5.6 if count == 1 else 3.9) * count), layout="constrained")
    FigureCanvasAgg(figure)
    for k, panel in enumerate(chart.panels):
        axes = figure.add_subplot(count, 1, k + 1)
        _draw(axes, chart, panel)
        axes.set_title(f"{chart.title}\n{panel.title}" if k == 0 and panel.title else panel.title or chart.title)
    handles = [Patch(facecolor=colour(k), label=name) for k, name in enumerate(chart.groups)]
    for hatch, name in enumerate(chart.hatches):
        if hatch and name:
            style = _hatch_style(hatch)
            handles.append(Patch(facecolor="#B8C4CC", label=name, linewidth=0, **style))
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    return figure


def save_map(chart: MemoryChart, path: Path) -> None:
    """Write the chart as ``.png`` (matplotlib), ``.svg`` or a zooming ``.html`` page, by the path's suffix.

    Raises:
        ConfigError: another suffix.
    """
    save_picture(
        path,
        title=chart.title,
        # On a page each panel zooms by itself, which needs a picture of its own.
        svg=lambda: (
            "".join(inline_svg(_panel_svg(chart, k)[0]) for k in range(len(chart.panels)))
            if path.suffix == ".html"
            else map_svg(chart)
        ),
        figure=lambda: map_figure(chart),
        script=gantt_script() if path.suffix == ".html" else "",
    )


def nice_sizes(top: float, count: int = 8) -> list[float]:
    """Return at most ``count`` multiples of a power of two within [0, top]: round values of bytes."""
    step = 2.0 ** math.ceil(math.log2(top / count))
    return [k * step for k in range(math.floor(top / step * (1 + 1e-12)) + 1)]


def _panel_svg(chart: MemoryChart, number_of: int) -> tuple[str, float]:
    """Return the SVG text of one panel, laid out for the script of the Gantt charts, and its height."""
    panel, (low, high) = chart.panels[number_of], chart.span
    first, last = number_of == 0, number_of == len(chart.panels) - 1
    top = _TOP + (16.0 if first and panel.title else 0.0)
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT if len(chart.panels) == 1 else _HEIGHT_OF_SEVERAL
    across, up = width / (high - low), height / panel.top
    base = top + height
    legend = _legend(chart, base + _BOTTOM + 12) if last else []
    total = base + _BOTTOM + _LEGEND_ROW * (legend[-1][0] + 0.5 if legend else 0)
    shapes = [_shape(panel, k, low, across, up, height) for k in range(len(panel.label))]
    parts = [
        f'<svg{SVG_NAMESPACE} class="schedrl-gantt" viewBox="0 0 {_WIDTH:g} {total:g}" width="100%" '
        'font-family="system-ui,sans-serif" font-size="11" fill="#222" role="img" '
        f'aria-label="{escape(chart.title)} {escape(panel.title)}" data-low="{low!r}" data-high="{high!r}">{_PATTERNS}',
        svg_text(_LEFT, 16, chart.title, extra=' font-size="14" font-weight="600"') if first else "",
        svg_text(_LEFT, top - 8, panel.title, extra=' font-weight="600"') if panel.title else "",
        f'<rect x="{_LEFT:g}" y="{top:g}" width="{width:g}" height="{height:g}" fill="#f2f4f6"/>',
        *_offset_axis(chart, panel, base, up),
        f'<svg class="plot" x="{_LEFT:g}" y="{top:g}" width="{width:g}" height="{height:g}" overflow="hidden">',
        f'<g class="bars" stroke="#fff" stroke-width="0.4">{"".join(shapes)}</g>',
        '<g class="labels" pointer-events="none">',
        *(_label(panel, k, low, across, up, height) for k in range(len(panel.label))),
        "</g></svg>",
        *(_level(level, base - level.value * up, width) for level in panel.levels),
        f'<g class="ticks" transform="translate({_LEFT:g} {base:g})" data-width="{width:g}">',
        *(_tick((time - low) * across, number(time), 17) for time in nice_ticks(low, high, _TICKS)),
        f'</g><g class="marks" transform="translate({_LEFT:g} {base:g})" fill="#666">',
        *(_tick((time - low) * across, text, 30) for time, text in _clock_ticks(chart)),
        "</g>",
        svg_text(
            _LEFT + width / 2, base + (47 if chart.clock is not None else 36), _axis_label(chart), anchor="middle"
        ),
        *(text for _, text in legend),
        "</svg>",
    ]
    return "".join(parts), total


def _shape(panel: MapPanel, k: int, low: float, across: float, up: float, height: float) -> str:
    hatch, group = int(panel.hatch[k]), int(panel.group[k])
    tall = float(panel.height[k]) * up
    fill = f"url(#schedrl-{HATCHES[hatch]})" if hatch else colour(group)
    # The page labels whatever is wide enough, so that low rectangles must not offer a label.
    label = panel.label[k] if tall >= _LINE - 1 and not hatch else ""
    return (
        f'<rect x="{(panel.start[k] - low) * across:.2f}" y="{height - (panel.low[k]) * up - tall:.2f}" '
        f'width="{max(panel.length[k] * across, 0.5):.2f}" height="{max(tall, 0.3):.2f}" fill="{fill}" '
        f'data-g="{group}" data-l="{escape(label)}"><title>{escape(panel.note[k])}</title></rect>'
    )


def _fitting(panel: MapPanel, k: int, wide: float, tall: float) -> str:
    """Return the label of a rectangle, cut to what fits into its width, or nothing."""
    if panel.hatch[k] or tall < _LINE - 1:
        return ""
    room = int((wide - 4) / _GLYPH)
    text = panel.label[k]
    if len(text) <= room:
        return text
    return text[: room - 1] + "…" if room > _LEAST_LABEL else ""


def _label(panel: MapPanel, k: int, low: float, across: float, up: float, height: float) -> str:
    wide, tall = float(panel.length[k]) * across, float(panel.height[k]) * up
    text = _fitting(panel, k, wide, tall)
    if not text:
        return ""
    x, y = (float(panel.start[k]) - low) * across + wide / 2, height - float(panel.low[k]) * up - tall / 2 + 4
    ink = ink_on(colour(int(panel.group[k])))
    return svg_text(x, y, text, anchor="middle", extra="" if ink == "#000000" else f' fill="{ink}"')


def _offset_axis(chart: MemoryChart, panel: MapPanel, base: float, up: float) -> list[str]:
    parts = []
    for value in nice_sizes(panel.top):
        parts.append(f'<path d="M{_LEFT - 5:g} {base - value * up:.1f}h5" stroke="#666"/>')
        parts.append(svg_text(_LEFT - 8, base - value * up + 4, number(value), anchor="end"))
    parts.append(f'<g transform="translate(14 {base - panel.top * up / 2:g}) rotate(-90)">')
    parts.append(svg_text(0, 0, chart.offset_label, anchor="middle") + "</g>")
    return parts


def _level(level: Level, y: float, width: float) -> str:
    text = svg_text(_LEFT + width - 4, y - 4, level.label, anchor="end", extra=' stroke="#fff" stroke-width="3"')
    inked = svg_text(_LEFT + width - 4, y - 4, level.label, anchor="end")
    line = f'<path d="M{_LEFT:g} {y:.1f}h{width:g}" stroke="#222" stroke-width="1.2" stroke-dasharray="6 3"/>'
    return f"{line}{text}{inked}"


def _tick(x: float, text: str, y: float) -> str:
    mark = '<path d="M0 0v5" stroke="#666"/>' if y < 20 else ""
    return f'<g data-x="{x:.2f}" transform="translate({x:.2f})">{mark}{svg_text(0, y, text, anchor="middle")}</g>'


def _clock_ticks(chart: MemoryChart) -> list[tuple[float, str]]:
    if chart.clock is None:
        return []
    return [
        (time, f"{chart.clock[int(time)]:.4g}") for time in nice_ticks(*chart.span, _TICKS) if float(time).is_integer()
    ]


def _axis_label(chart: MemoryChart) -> str:
    return f"{chart.time_label} (below: {chart.clock_label})" if chart.clock is not None else chart.time_label


def _legend(chart: MemoryChart, top: float) -> list[tuple[int, str]]:
    """Return the legend's entries, each with the number of its row, counted from 1."""
    named = [(colour(k), name) for k, name in enumerate(chart.groups)]
    named += [(f"url(#schedrl-{HATCHES[k]})", name) for k, name in enumerate(chart.hatches) if k and name]
    entries: list[tuple[int, str]] = []
    x, line = _LEFT, 1
    for fill, name in named:
        width = 34.0 + _GLYPH * len(name)
        if x + width > _WIDTH - _RIGHT and x > _LEFT:
            x, line = _LEFT, line + 1
        y = top + (line - 1) * _LEGEND_ROW
        box = f'x="{x:g}" y="{y - 9:g}" width="14" height="11"'
        swatch = f'<rect {box} fill="#B8C4CC"/><rect {box} fill="{fill}"/>'
        entries.append((line, swatch + svg_text(x + 19, y, name)))
        x += width
    return entries


def _hatch_style(hatch: int) -> dict[str, Any]:
    return {"hatch": "//////", "edgecolor": "#333333"} if hatch == 1 else {"hatch": "\\\\\\\\", "edgecolor": "#ffffff"}


def _draw(axes: Axes, chart: MemoryChart, panel: MapPanel) -> None:
    """Draw a panel into matplotlib axes."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    low, high = chart.span
    boxes = [
        Rectangle((float(x), float(y)), float(w), float(h))
        for x, y, w, h in zip(panel.start, panel.low, panel.length, panel.height, strict=True)
    ]
    axes.set_facecolor("#f2f4f6")
    for hatch in range(len(HATCHES)):
        chosen = np.flatnonzero(panel.hatch == hatch).tolist()
        if not chosen:
            continue
        patches = [boxes[k] for k in chosen]
        if hatch:
            style = _hatch_style(hatch)
            axes.add_collection(PatchCollection(patches, facecolor="none", linewidth=0, **style))
        else:
            colours = [colour(int(panel.group[k])) for k in chosen]
            axes.add_collection(PatchCollection(patches, facecolor=colours, edgecolor="white", linewidth=0.25))
    # Labels are measured in the units of the SVG, which fit the same shapes with the same font.
    across, up = _WIDTH / (high - low), (_HEIGHT if len(chart.panels) == 1 else _HEIGHT_OF_SEVERAL) / panel.top
    for k, box in enumerate(boxes):
        if text := _fitting(panel, k, float(panel.length[k]) * across, float(panel.height[k]) * up):
            x, y = box.get_x() + box.get_width() / 2, box.get_y() + box.get_height() / 2
            ink = ink_on(colour(int(panel.group[k])))
            axes.text(x, y, text, ha="center", va="center", fontsize=6, color=ink, clip_on=True)
    for level in panel.levels:
        axes.axhline(level.value, color="#222222", linewidth=1, linestyle="--")
        axes.annotate(level.label, (1, level.value), xycoords=("axes fraction", "data"), xytext=(-4, 2),
                      textcoords="offset points", ha="right", va="bottom", fontsize=7,
                      bbox={"facecolor": "white", "alpha": 0.75, "pad": 1, "linewidth": 0})  # fmt: skip
    axes.set(xlim=(low, high), ylim=(0, panel.top), ylabel=chart.offset_label, xlabel=_axis_label(chart))
    ticks = nice_ticks(low, high, _TICKS)
    texts = [number(time) for time in ticks]
    if chart.clock is not None:
        clock = dict(_clock_ticks(chart))
        texts = [f"{text}\n{clock.get(time, '')}" for time, text in zip(ticks, texts, strict=True)]
    axes.set_xticks(ticks, texts)
    sizes = nice_sizes(panel.top)
    axes.set_yticks(sizes, [number(size) for size in sizes])
    axes.spines[["top", "right"]].set_visible(False)
