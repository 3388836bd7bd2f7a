"""Axis arithmetic and text shared by the SVG drawings."""

from __future__ import annotations

import math
from html import escape

__all__ = ["SVG_NAMESPACE", "inline_svg", "nice_ticks", "number", "svg_text"]

SVG_NAMESPACE = ' xmlns="http://www.w3.org/2000/svg"'


def nice_ticks(low: float, high: float, count: int = 8) -> list[float]:
    """Return about ``count`` round values (1, 2 or 5 times a power of ten) within [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / max(count, 1)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """Return a short decimal text: integers without a point, six significant digits otherwise."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:.6g}"


def svg_text(x: float, y: float, text: str, *, anchor: str = "start", extra: str = "") -> str:
    """Return one SVG text element with escaped content."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{escape(text)}</text>'


def inline_svg(svg: str) -> str:
    """Return SVG file text without prolog, document type and namespace, for use inside an HTML page."""
    start = svg.find("<svg")
    return svg[max(start, 0) :].replace(SVG_NAMESPACE, "", 1)
