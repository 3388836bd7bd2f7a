"""Pictures as files: one place that knows what each suffix means."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from schedrl.atomic import replacing, write_text
from schedrl.errors import ConfigError
from schedrl.plotting.axes import inline_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["interactive", "save_picture"]


def interactive(svg: str, script: str = "") -> str:
    """Return an HTML fragment of an SVG text and the JavaScript that goes with it."""
    return f'<figure style="margin:0">{inline_svg(svg)}</figure>' + (f"<script>{script}</script>" if script else "")


def save_picture(
    path: Path, *, title: str, svg: Callable[[], str], figure: Callable[[], Figure], script: str = ""
) -> None:
    """Write a picture as ``.svg``, as an ``.html`` page that needs no other file, or as ``.png``, by the suffix.

    Args:
        path: Where to; missing folders are made, and the file appears complete or not at all.
        title: Title of the page.
        svg: Draws the picture as SVG text, for ``.svg`` and ``.html``.
        figure: Draws it with matplotlib, for ``.png`` only, so that the others do without matplotlib.
        script: JavaScript of the page.

    Raises:
        ConfigError: another suffix.
    """
    if path.suffix == ".svg":
        write_text(path, svg())
    elif path.suffix == ".html":
        write_text(path, _page(title, interactive(svg(), script)))
    elif path.suffix == ".png":
        drawn = figure()
        with replacing(path) as temporary:
            drawn.savefig(temporary, dpi=150)
    else:
        raise ConfigError(f"{path}: suffix {path.suffix!r} is not a picture format; expected .png, .svg or .html")


def _page(title: str, fragment: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title></head>"
        f'<body style="margin:1rem;background:#fff">{fragment}</body></html>'
    )
