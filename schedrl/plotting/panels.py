"""Several line charts below one another, for quantities over the same axis."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from schedrl.errors import ConfigError
from schedrl.plotting.axes import SVG_NAMESPACE, inline_svg
from schedrl.plotting.files import save_picture
from schedrl.plotting.lines import LineChart, draw_lines, line_size, line_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PanelChart", "panel_figure", "panel_svg", "save_panels"]

_GAP = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelChart:
    """Charts from top to bottom; ``title`` names the whole.

    Raises:
        ConfigError: no panel.
    """

    title: str
    panels: tuple[LineChart, ...]

    def __post_init__(self) -> None:
        if not self.panels:
            raise ConfigError(f"chart {self.title!r}: field panels: empty, expected at least one chart")


def panel_svg(chart: PanelChart) -> str:
    """Return all panels as one SVG text."""
    parts, y = [], 0.0
    width = max(line_size(panel)[0] for panel in chart.panels)
    for panel in chart.panels:
        _, height = line_size(panel)
        parts.append(f'<svg y="{y:g}" width="{width:g}" height="{height:g}">{inline_svg(line_svg(panel))}</svg>')
        y += height + _GAP
    return (
        f'<svg{SVG_NAMESPACE} class="schedrl-panels" viewBox="0 0 {width:g} {y - _GAP:g}" width="100%" role="img" '
        f'aria-label="{escape(chart.title)}">{"".join(parts)}</svg>'
    )


def panel_figure(chart: PanelChart) -> Figure:
    """Return all panels as one matplotlib figure, for notebooks and bitmap files."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4 * len(chart.panels)), layout="constrained")
    FigureCanvasAgg(figure)
    for k, panel in enumerate(chart.panels):
        draw_lines(figure.add_subplot(len(chart.panels), 1, k + 1), panel)
    return figure


def save_panels(chart: PanelChart, path: Path) -> None:
    """Write all panels as ``.svg``, ``.html`` or ``.png`` (matplotlib), by the path's suffix.

    Raises:
        ConfigError: another suffix.
    """
    save_picture(path, title=chart.title, svg=lambda: panel_svg(chart), figure=lambda: panel_figure(chart))
