"""Line charts of a few labelled curves, or of areas that add up, as SVG text or through matplotlib."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from schedrl.arrays import F64
from schedrl.errors import ConfigError
from schedrl.plotting.axes import SVG_NAMESPACE, nice_ticks, number, svg_text
from schedrl.plotting.files import save_picture
from schedrl.plotting.palette import colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Line", "LineChart", "draw_lines", "line_figure", "line_size", "line_svg", "save_lines"]

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

    ``stacked`` puts each line on top of those before it and fills the area between them; all share their x.

    Raises:
        ConfigError: no line, an empty line, x and y of unequal lengths, or stacked lines of unlike x.
    """

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    stepped: bool = False
    y_range: tuple[float, float] | None = None
    stacked: bool = False

    def __post_init__(self) -> None:
        if not self.lines:
            raise ConfigError(f"chart {self.title!r}: field lines: empty, expected at least one line")
        for line in self.lines:
            if len(line.x) != len(line.y) or not len(line.x):
                raise ConfigError(
                    f"chart {self.title!r}: line {line.label!r}: {len(line.x)} x and {len(line.y)} y values, "
                    "expected as many of each and at least one"
                )
            if self.stacked and not np.array_equal(line.x, self.lines[0].x):
                raise ConfigError(f"chart {self.title!r}: line {line.label!r}: stacked lines need the same x values")

    @property
    def heights(self) -> list[F64]:
        """Drawn y values of each line: its own, or with those of the lines below it added."""
        if not self.stacked:
            return [line.y for line in self.lines]
        return list(np.cumsum([line.y for line in self.lines], axis=0))

    @property
    def ranges(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of the drawn area in data units, never empty."""
        x = np.concatenate([line.x for line in self.lines])
        y = np.concatenate(self.heights)
        bottom, top = self.y_range or (0.0 if self.stacked else float(y.min()), float(y.max()))
        left, right = float(x.min()), float(x.max())
        return left, right if right > left else left + 1.0, bottom, top if top > bottom else bottom + 1.0


def line_size(chart: LineChart) -> tuple[float, float]:
    """Return width and height of the SVG's view box."""
    return _WIDTH, _HEIGHT + _LEGEND_ROW * -(-len(chart.lines) // _columns(chart)) + 6


def line_svg(chart: LineChart) -> str:
    """Return the chart as one SVG text with a legend below the axes."""
    left, right, bottom, top = chart.ranges
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    across, up = width / (right - left), height / (top - bottom)
    columns, total = _columns(chart), line_size(chart)[1]
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
    # Stacked areas reach down to the axis, so the topmost is drawn first.
    for k in reversed(range(len(chart.lines))) if chart.stacked else range(len(chart.lines)):
        x_px = _LEFT + (chart.lines[k].x - left) * across
        y_px = base - (np.clip(chart.heights[k], bottom, top) - bottom) * up
        path = _path(x_px, y_px, chart.stepped)
        if chart.stacked:
            parts.append(f'<path d="{path}V{base:g}H{x_px[0]:.1f}Z" fill="{colour(k)}"/>')
        else:
            parts.append(f'<path d="{path}" fill="none" {_stroke(k)}/>')
        column, row = k % columns, k // columns
        x, y = _LEFT + column * width / columns, _HEIGHT + _LEGEND_ROW * row + 8
        # Lines differ by dash beyond seven hues, areas by tint.
        stroke = f'stroke="{colour(k)}" stroke-width="10"' if chart.stacked else _stroke(k)
        parts.append(f'<path d="M{x:g} {y - 4:g}h24" fill="none" {stroke}/>{svg_text(x + 30, y, chart.lines[k].label)}')
    return "".join([*parts, "</svg>"])


def line_figure(chart: LineChart) -> Figure:
    """Return the chart as a matplotlib figure, for notebooks and bitmap files."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    draw_lines(figure.add_subplot(), chart)
    return figure


def draw_lines(axes: Axes, chart: LineChart) -> None:
    """Draw the chart into matplotlib axes."""
    styles = ("-", "--", ":", "-.")
    below = np.zeros(1)
    step: Literal["post"] | None = "post" if chart.stepped else None
    for k, (line, height) in enumerate(zip(chart.lines, chart.heights, strict=True)):
        if chart.stacked:
            below = np.broadcast_to(below, height.shape)
            axes.fill_between(line.x, below, height, step=step, color=colour(k), linewidth=0, label=line.label)
            below = height
            continue
        axes.plot(
            line.x,
            height,
            label=line.label,
            color=colour(k % 7),
            linestyle=styles[k // 7 % 4],
            drawstyle="steps-post" if chart.stepped else "default",
        )
    left, right, bottom, top = chart.ranges
    axes.set(title=chart.title, xlabel=chart.x_label, ylabel=chart.y_label, xlim=(left, right))
    if chart.y_range or chart.stacked:
        axes.set_ylim(bottom, top)
    axes.grid(axis="y", color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)


def save_lines(chart: LineChart, path: Path) -> None:
    """Write the chart as ``.svg``, ``.html`` or ``.png`` (matplotlib), by the path's suffix.

    Raises:
        ConfigError: another suffix.
    """
    save_picture(path, title=chart.title, svg=lambda: line_svg(chart), figure=lambda: line_figure(chart))


def _columns(chart: LineChart) -> int:
    return 2 if max(len(line.label) for line in chart.lines) < 42 else 1


def _path(x: F64, y: F64, stepped: bool) -> str:
    join = "H{:.1f}V{:.1f}" if stepped else "L{:.1f} {:.1f}"
    rest = (join.format(px, py) for px, py in zip(x[1:].tolist(), y[1:].tolist(), strict=True))
    return f"M{x[0]:.1f} {y[0]:.1f}" + "".join(rest)


def _stroke(k: int) -> str:
    dash = _DASHES[k // 7 % len(_DASHES)]
    return f'stroke="{colour(k % 7)}" stroke-width="2"' + (f' stroke-dasharray="{dash}"' if dash else "")
