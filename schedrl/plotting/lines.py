"""Line charts of a few labelled curves, as SVG text or through matplotlib."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from schedrl.arrays import F64
from schedrl.atomic import replacing, write_text
from schedrl.errors import ConfigError
from schedrl.plotting.axes import SVG_NAMESPACE, nice_ticks, number, svg_text
from schedrl.plotting.palette import colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Line", "LineChart", "line_figure", "line_svg", "save_lines"]

_WIDTH, _HEIGHT = 720.0, 300.0
_LEFT, _TOP, _RIGHT, _BOTTOM = 58.0, 34.0, 14.0, 44.0
_LEGEND_ROW = 18.0
# One dash pattern per round through the seven hues, so that colour is never the only difference.
_DASHES = ("", "6 3", "2 2", "9 3 2 3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve: its legend text and its points in drawing order."""

    label: str
    x: F64  # (T,)
    y: F64  # (T,)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineChart:
    """What to draw; ``stepped`` holds each y until the next x, ``y_range`` fixes the vertical axis.

    Raises:
        ConfigError: no line, an empty line, or x and y of unequal lengths.
    """

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    stepped: bool = False
    y_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not self.lines:
            raise ConfigError(f"chart {self.title!r}: field lines: empty, expected at least one line")
        for line in self.lines:
            if len(line.x) != len(line.y) or not len(line.x):
                raise ConfigError(
                    f"chart {self.title!r}: line {line.label!r}: {len(line.x)} x and {len(line.y)} y values, "
                    "expected as many of each and at least one"
                )

    @property
    def ranges(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of the drawn area in data units, never empty."""
        x = np.concatenate([line.x for line in self.lines])
        y = np.concatenate([line.y for line in self.lines])
        bottom, top = self.y_range or (float(y.min()), float(y.max()))
        left, right = float(x.min()), float(x.max())
        return left, right if right > left else left + 1.0, bottom, top if top > bottom else bottom + 1.0


def line_svg(chart: LineChart) -> str:
    """Return the chart as one SVG text with a legend below the axes."""
    left, right, bottom, top = chart.ranges
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    across, up = width / (right - left), height / (top - bottom)
    columns = 2 if max(len(line.label) for line in chart.lines) < 42 else 1
    total = _HEIGHT + _LEGEND_ROW * -(-len(chart.lines) // columns) + 6
    base = _TOP + height
    parts = [
        f'<svg{SVG_NAMESPACE} class="schedrl-lines" viewBox="0 0 {_WIDTH:g} {total:g}" width="100%" '
        f'font-family="system-ui,sans-serif" font-size="11" fill="#222" role="img" aria-label="{escape(chart.title)}">',
        svg_text(_LEFT, 18, chart.title, extra=' font-size="14" font-weight="600"'),
        svg_text(_LEFT + width / 2, base + 36, chart.x_label, anchor="middle"),
        f'<g transform="translate(14 {_TOP + height / 2:g}) rotate(-90)">',
        svg_text(0, 0, chart.y_label, anchor="middle") + "</g>",
    ]
    for tick in nice_ticks(bottom, top, 5):
        y = base - (tick - bottom) * up
        parts.append(f'<path d="M{_LEFT:g} {y:.1f}h{width:g}" stroke="#ddd"/>')
        parts.append(svg_text(_LEFT - 6, y + 4, number(tick), anchor="end"))
    for tick in nice_ticks(left, right):
        x = _LEFT + (tick - left) * across
        parts.append(f'<path d="M{x:.1f} {base:g}v5" stroke="#666"/>')
        parts.append(svg_text(x, base + 18, number(tick), anchor="middle"))
    for k, line in enumerate(chart.lines):
        x_px = _LEFT + (line.x - left) * across
        y_px = base - (np.clip(line.y, bottom, top) - bottom) * up
        parts.append(f'<path d="{_path(x_px, y_px, chart.stepped)}" fill="none" {_stroke(k)}/>')
        column, row = k % columns, k // columns
        x, y = _LEFT + column * width / columns, _HEIGHT + _LEGEND_ROW * row + 8
        parts.append(f'<path d="M{x:g} {y - 4:g}h24" fill="none" {_stroke(k)}/>{svg_text(x + 30, y, line.label)}')
    return "".join([*parts, "</svg>"])


def line_figure(chart: LineChart) -> Figure:
    """Return the chart as a matplotlib figure, for notebooks and bitmap files."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    styles = ("-", "--", ":", "-.")
    for k, line in enumerate(chart.lines):
        axes.plot(
            line.x,
            line.y,
            label=line.label,
            color=colour(k % 7),
            linestyle=styles[k // 7 % 4],
            drawstyle="steps-post" if chart.stepped else "default",
        )
    left, right, bottom, top = chart.ranges
    axes.set(title=chart.title, xlabel=chart.x_label, ylabel=chart.y_label, xlim=(left, right))
    if chart.y_range:
        axes.set_ylim(bottom, top)
    axes.grid(axis="y", color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    return figure


def save_lines(chart: LineChart, path: Path) -> None:
    """Write the chart as ``.svg`` or ``.png`` (matplotlib), by the path's suffix.

    Raises:
        ConfigError: another suffix.
    """
    if path.suffix == ".svg":
        write_text(path, line_svg(chart))
    elif path.suffix == ".png":
        figure = line_figure(chart)
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=150)
    else:
        raise ConfigError(f"{path}: suffix {path.suffix!r} is not a chart format; expected .png or .svg")


def _path(x: F64, y: F64, stepped: bool) -> str:
    join = "H{:.1f}V{:.1f}" if stepped else "L{:.1f} {:.1f}"
    rest = (join.format(px, py) for px, py in zip(x[1:].tolist(), y[1:].tolist(), strict=True))
    return f"M{x[0]:.1f} {y[0]:.1f}" + "".join(rest)


def _stroke(k: int) -> str:
    dash = _DASHES[k // 7 % len(_DASHES)]
    return f'stroke="{colour(k % 7)}" stroke-width="2"' + (f' stroke-dasharray="{dash}"' if dash else "")
