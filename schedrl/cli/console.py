"""What commands print: one JSON object with ``--json``, otherwise short tables; errors in one line."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "emit_json",
    "fail",
    "flattened",
    "number",
    "one_line",
    "percent",
    "print_fields",
    "print_table",
    "stdout_console",
]


# Tables in logs and pipes are cut at this width, where rich would assume 80.
_PIPE_WIDTH = 160
_MAX_LISTED = 8


def one_line(text: str) -> str:
    """Return the text with all white space runs as single spaces."""
    return " ".join(text.split())


def fail(message: str, as_json: bool, *, code: int = 2) -> int:
    """Print ``error: message`` on stderr (and a JSON object on stdout if asked) and return the exit code."""
    message = one_line(message)
    if as_json:
        emit_json({"error": message})
    print(f"error: {message}", file=sys.stderr)
    return code


def emit_json(payload: Mapping[str, Any]) -> None:
    """Print one JSON object; numbers that JSON cannot express become null."""
    print(json.dumps(_plain(payload), indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def number(value: float | None) -> str:
    """Format an objective or time: no needless decimals, ``-`` for None."""
    if value is None:
        return "-"
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.6g}"


def percent(ratio: float | None) -> str:
    """Format a ratio as a percentage, ``-`` for None."""
    return "-" if ratio is None else f"{100 * ratio:.2f} %"


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Print aligned ``name  value`` lines."""
    pairs = list(fields)
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        print(f"{name:<{width}}  {value}")


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield ``part.name`` and text of every entry of nested mappings, for ``print_fields``."""
    for name, item in values.items():
        if isinstance(item, Mapping):
            yield from flattened(item, f"{prefix}{name}.")
        elif isinstance(item, list | tuple):
            yield f"{prefix}{name}", _listed(item)
        elif isinstance(item, float):
            yield f"{prefix}{name}", number(item)
        else:
            yield f"{prefix}{name}", str(item)


def _listed(items: Sequence[Any]) -> str:
    if items and all(isinstance(item, Mapping) and "name" in item for item in items):
        return ", ".join(str(item["name"]) for item in items)
    return f"{len(items)} values, see --json" if len(items) > _MAX_LISTED else ", ".join(map(str, items))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; numbers are right-aligned."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    body = [list(row) for row in rows]
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = bool(body) and all(_is_numeric(row[index]) for row in body)
        table.add_column(column, justify="right" if numeric else "left", no_wrap=index == 0)
    for row in body:
        # Text, not str: names with square brackets are not markup.
        table.add_row(*[Text(cell) for cell in row])
    stdout_console().print(table)


def stdout_console() -> Console:
    """Return a console on stdout that keeps wide tables whole in logs and pipes."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)


def _is_numeric(cell: str) -> bool:
    try:
        float(cell.removesuffix("%"))
    except ValueError:
        return cell in ("", "-")
    return True
