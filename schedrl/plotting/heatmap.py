"""Heatmaps side by side under one colour scale, as SVG text or through matplotlib."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from schedrl.arrays import F64, I64
from schedrl.errors import ConfigError
from schedrl.plotting.axes import SVG_NAMESPACE, nice_ticks, number, svg_text
from schedrl.plotting.files import save_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Heatmap", "HeatmapChart", "heatmap_figure", "heatmap_svg", "save_heatmap", "scale_colour"]

_WIDTH, _TOP, _BOTTOM, _LEFT, _RIGHT = 1000.0, 58.0, 44.0, 58.0, 96.0
_GAP, _BAR = 22.0, 14.0
_LOWEST, _HIGHEST, _ROW = 180.0, 620.0, 9.0  # least and most height of the cells, and what a row would like
_LEVELS = 65  # colours of a scale; odd, so that one is the centre
# Both scales rise or fall steadily in lightness, and no pair of ends looks alike to colour-blind readers.
_SEQUENTIAL = ((214, 232, 245), (86, 180, 233), (0, 114, 178), (8, 38, 72))
_DIVERGING = ((0, 75, 128), (86, 180, 233), (250, 250, 248), (230, 159, 0), (150, 50, 0))
_MISSING = "#F3F4F5"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heatmap:
    """One panel: a value per cell, row 0 on top; NaN leaves a cell grey."""

    title: str
    values: F64  # (R, C)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatmapChart:
    """Panels of equal shape side by side. With ``centre``, colours part there into cold below and warm above.

    Rows and columns are numbered from 0 unless ``rows`` names them. ``breaks`` are columns before which a line is
    drawn, such as the first device of every node. ``gamma`` below 1 spreads the low values of a scale without centre.

    Raises:
        ConfigError: no panel, an empty one, panels of unequal shape, another number of row names, or a gamma
            that is not positive.
    """

    title: str
    panels: tuple[Heatmap, ...]
    x_label: str
    y_label: str
    value_label: str
    centre: float | None = None
    rows: tuple[str, ...] = ()
    breaks: tuple[int, ...] = ()
    gamma: float = 1.0

    def __post_init__(self) -> None:
        where = f"heatmap {self.title!r}"
        if not self.panels:
            raise ConfigError(f"{where}: field panels: empty, expected at least one")
        shapes = {panel.values.shape for panel in self.panels}
        if len(shapes) != 1 or len(self.shape) != 2 or 0 in self.shape:
            raise ConfigError(f"{where}: field panels: shapes {sorted(shapes)}, expected one of rows and columns")
        if self.rows and len(self.rows) != self.shape[0]:
            raise ConfigError(f"{where}: field rows: {len(self.rows)} names for {self.shape[0]} rows")
        if not self.gamma > 0:
            raise ConfigError(f"{where}: field gamma: {self.gamma}, expected a positive number")

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns of every panel."""
        return self.panels[0].values.shape

    @property
    def scale(self) -> tuple[float, float]:
        """Least and largest value of all panels, the centre between them, never equal."""
        known = np.concatenate([panel.values[np.isfinite(panel.values)] for panel in self.panels])
        shown = [*known.tolist(), *([] if self.centre is None else [self.centre])] or [0.0]
        low, high = min(shown), max(shown)
        return (low, high) if high > low else (low, low + 1.0)

    def fractions(self, values: F64) -> F64:
        """Return where values are on the colour scale, 0 to 1; the centre, if any, is at a half."""
        low, high = self.scale
        if self.centre is None:
            return np.asarray(((values - low) / (high - low)) ** self.gamma, dtype=np.float64)
        below = 0.5 * (values - low) / max(self.centre - low, 1e-300)
        above = 0.5 + 0.5 * (values - self.centre) / max(high - self.centre, 1e-300)
        return np.asarray(np.where(values < self.centre, below, above), dtype=np.float64)


def scale_colour(fraction: float, *, diverging: bool = False) -> str:
    """Return the colour at a place from 0 to 1 of the sequential or diverging scale as ``#RRGGBB``."""
    stops = np.array(_DIVERGING if diverging else _SEQUENTIAL, dtype=np.float64)
    places = np.linspace(0.0, 1.0, len(stops))
    return "#" + "".join(f"{round(float(np.interp(fraction, places, channel))):02X}" for channel in stops.T)


def heatmap_svg(chart: HeatmapChart) -> str:
    """Return the chart as one SVG text; cells of one colour are one path, so that thousands stay small."""
    rows, columns = chart.shape
    width = (_WIDTH - _LEFT - _RIGHT - _GAP * (len(chart.panels) - 1)) / len(chart.panels)
    height = _height(chart)
    parts = [
        f'<svg{SVG_NAMESPACE} class="schedrl-heatmap" viewBox="0 0 {_WIDTH:g} {_TOP + height + _BOTTOM:g}" '
        f'width="100%" font-family="system-ui,sans-serif" font-size="11" fill="#222" role="img" '
        f'aria-label="{escape(chart.title)}">',
        svg_text(_LEFT, 18, chart.title, extra=' font-size="14" font-weight="600"'),
        f'<g transform="translate(14 {_TOP + height / 2:g}) rotate(-90)">',
        svg_text(0, 0, chart.y_label, anchor="middle") + "</g>",
    ]
    for row, name in _row_ticks(chart, height):
        parts.append(svg_text(_LEFT - 5, _TOP + (row + 0.5) * height / rows + 4, name, anchor="end"))
    for k, panel in enumerate(chart.panels):
        left = _LEFT + k * (width + _GAP)
        parts.append(svg_text(left, _TOP - 8, panel.title, extra=' font-weight="600"'))
        parts.append(_cells(chart, panel, left, width, height))
        for column in chart.breaks:
            parts.append(f'<path d="M{left + column * width / columns:.1f} {_TOP:g}v{height:g}" stroke="#555"/>')
        for tick in _whole_ticks(columns, width):
            x = left + (tick + 0.5) * width / columns
            parts.append(svg_text(x, _TOP + height + 16, str(tick), anchor="middle"))
        parts.append(svg_text(left + width / 2, _TOP + height + 34, chart.x_label, anchor="middle"))
    return "".join([*parts, *_colour_bar(chart, height), "</svg>"])


def heatmap_figure(chart: HeatmapChart) -> Figure:
    """Return the chart as a matplotlib figure, for notebooks and bitmap files."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    diverging = chart.centre is not None
    colours = ListedColormap([scale_colour(k / (_LEVELS - 1), diverging=diverging) for k in range(_LEVELS)])
    height = _height(chart)
    figure = Figure(figsize=(11, 1.3 + height / 110), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, len(chart.panels), squeeze=False)[0]
    for k, (axes, panel) in enumerate(zip(grid, chart.panels, strict=True)):
        axes.set_facecolor(_MISSING)
        image = axes.imshow(chart.fractions(panel.values), cmap=colours, vmin=0, vmax=1, aspect="auto",
                            interpolation="nearest")  # fmt: skip
        axes.set_title(panel.title, fontsize=10)
        axes.set_xlabel(chart.x_label)
        axes.set_xticks(_whole_ticks(chart.shape[1], _WIDTH / len(chart.panels)))
        ticks = _row_ticks(chart, height) if k == 0 else []
        axes.set_yticks([row for row, _ in ticks], [name for _, name in ticks])
        for column in chart.breaks:
            axes.axvline(column - 0.5, color="#555555", linewidth=0.8)
    grid[0].set_ylabel(chart.y_label)
    bar = figure.colorbar(image, ax=grid.tolist(), label=chart.value_label)
    values = _scale_ticks(chart)
    bar.set_ticks(chart.fractions(np.array(values)).tolist(), labels=[number(value) for value in values])
    figure.suptitle(chart.title)
    return figure


def save_heatmap(chart: HeatmapChart, path: Path) -> None:
    """Write the chart as ``.svg``, ``.html`` or ``.png`` (matplotlib), by the path's suffix.

    Raises:
        ConfigError: another suffix.
    """
    save_picture(path, title=chart.title, svg=lambda: heatmap_svg(chart), figure=lambda: heatmap_figure(chart))


def _height(chart: HeatmapChart) -> float:
    return min(max(_LOWEST, _ROW * chart.shape[0]), _HIGHEST)


def _cells(chart: HeatmapChart, panel: Heatmap, left: float, width: float, height: float) -> str:
    rows, columns = chart.shape
    across, down = width / columns, height / rows
    fractions = chart.fractions(panel.values)
    levels: I64 = np.where(np.isfinite(fractions), np.rint(np.nan_to_num(fractions) * (_LEVELS - 1)), -1).astype(
        np.int64
    )
    parts = [f'<g transform="translate({left:g} {_TOP:g})">']
    for level in np.unique(levels).tolist():
        fill = _MISSING if level < 0 else scale_colour(level / (_LEVELS - 1), diverging=chart.centre is not None)
        # Cells overlap by a hair, so that no white seams show between them.
        runs = [
            f"M{column * across:.2f} {row * down:.2f}h{length * across + 0.1:.2f}v{down + 0.1:.2f}"
            f"h-{length * across + 0.1:.2f}z"
            for row, column, length in _runs(levels == level)
        ]
        parts.append(f'<path fill="{fill}" d="{"".join(runs)}"/>')
    return "".join([*parts, "</g>"])


def _runs(chosen: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> list[tuple[int, int, int]]:
    """Return row, first column and length of every run of chosen cells within a row."""
    edges = np.diff(np.pad(chosen.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    starts, ends = np.argwhere(edges == 1), np.argwhere(edges == -1)
    return [(int(row), int(first), int(end - first)) for (row, first), (_, end) in zip(starts, ends, strict=True)]


def _colour_bar(chart: HeatmapChart, height: float) -> list[str]:
    x, step = _WIDTH - _RIGHT + 18.0, height / _LEVELS
    parts = []
    for level in range(_LEVELS):
        fill = scale_colour(level / (_LEVELS - 1), diverging=chart.centre is not None)
        y = _TOP + height - (level + 1) * step
        parts.append(f'<rect x="{x:g}" y="{y:.2f}" width="{_BAR:g}" height="{step + 0.1:.2f}" fill="{fill}"/>')
    values = _scale_ticks(chart)
    for value, fraction in zip(values, chart.fractions(np.array(values)).tolist(), strict=True):
        y = _TOP + height * (1 - fraction)
        parts.append(f'<path d="M{x + _BAR:g} {y:.1f}h4" stroke="#666"/>')
        parts.append(svg_text(x + _BAR + 7, y + 4, number(value)))
    parts.append(f'<g transform="translate({_WIDTH - 8:g} {_TOP + height / 2:g}) rotate(-90)">')
    parts.append(svg_text(0, 0, chart.value_label, anchor="middle") + "</g>")
    return parts


def _scale_ticks(chart: HeatmapChart) -> list[float]:
    """Return round values of the scale; those that would stand too close to the centre's are left out."""
    low, high = chart.scale
    if chart.centre is None:
        ticks = nice_ticks(low, high, 6)
        places = chart.fractions(np.array(ticks))
        return [ticks[0], *(t for t, gap in zip(ticks[1:], np.diff(places).tolist(), strict=True) if gap > 0.03)]
    sides = [(low, chart.centre), (chart.centre, high)]
    found = {chart.centre}
    for first, last in sides:
        ticks = nice_ticks(first, last, 4) if last > first else []
        found |= {tick for tick in ticks if abs(chart.fractions(np.array([tick]))[0] - 0.5) > 0.04}
    return sorted(found)


def _whole_ticks(count: int, width: float) -> list[int]:
    return [int(tick) for tick in nice_ticks(0, max(count - 1, 0), min(8, round(width / 45))) if tick == int(tick)]


def _row_ticks(chart: HeatmapChart, height: float) -> list[tuple[int, str]]:
    rows = chart.shape[0]
    if not chart.rows:
        return [(row, str(row)) for row in _whole_ticks(rows, 360)]
    every = -(-rows // max(int(height / 12), 1))
    return [(row, chart.rows[row]) for row in range(0, rows, every)]
