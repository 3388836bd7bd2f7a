"""Routes of single tokens through one layer: CSV files of their top-k experts, and what can be measured on them."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from pathlib import Path

import numpy as np

from schedrl.arrays import I32, I64
from schedrl.errors import ConfigError, InstanceError

__all__ = ["Repetition", "TokenRoutes", "parse_routes", "read_routes", "repetition", "route_counts"]

_MAX_EXPERTS = 2**16


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenRoutes:
    """The experts of consecutive tokens in one layer, each token's best first."""

    experts: I32  # (T, k) ids, distinct within a token
    source: str
    """file that they came from"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """How often a token repeats its predecessor's experts, as shares of all tokens but the first.

    Table 5 of the Mixtral paper (arXiv 2401.04088) gives both figures; uniformly random routes have those named so.
    """

    first: float
    """same first expert"""
    first_or_second: float
    """any expert in common among the first two of both"""
    random_first: float
    random_first_or_second: float


def read_routes(path: Path, *, experts: int | None = None) -> TokenRoutes:
    """Read a file with the header ``row,e0,e1,...``, one line per token.

    Args:
        path: The file.
        experts: Number of experts in the layer, for a check of the ids.

    Raises:
        InstanceError: unreadable or broken; names file, line and column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InstanceError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InstanceError(f"{path}: not UTF-8 text, expected routes as CSV") from None
    return parse_routes(text, source=str(path), experts=experts)


def parse_routes(text: str, *, source: str, experts: int | None = None) -> TokenRoutes:
    """Return the routes in a text, as ``read_routes``.

    Raises:
        InstanceError: broken; names ``source``, line and column.
    """
    lines = text.splitlines()
    header = lines[0].strip().split(",") if lines else []
    top_k = len(header) - 1
    if top_k < 1 or header != ["row", *(f"e{k}" for k in range(top_k))]:
        raise InstanceError(f"{source}:1: header {','.join(header)!r:.60}, expected row,e0,e1,...")
    limit = _MAX_EXPERTS if experts is None else experts
    rows = [
        _experts_of(line, f"{source}:{number}", header, limit)
        for number, line in enumerate(lines[1:], start=2)
        if line.strip()
    ]
    if not rows:
        raise InstanceError(f"{source}: no tokens, expected at least one line after the header")
    array = np.array(rows, dtype=np.int32)
    array.flags.writeable = False
    return TokenRoutes(experts=array, source=source)


def _experts_of(line: str, where: str, header: list[str], limit: int) -> list[int]:
    cells = line.strip().split(",")
    if len(cells) != len(header):
        raise InstanceError(f"{where}: {len(cells)} fields, expected {len(header)}")
    ids = []
    for column, cell in zip(header[1:], cells[1:], strict=True):
        if not (cell.isascii() and cell.isdecimal() and len(cell) < 10 and int(cell) < limit):
            raise InstanceError(f"{where}: field {column}: {cell!r:.40}, expected an expert from 0 to {limit - 1}")
        if int(cell) in ids:
            raise InstanceError(f"{where}: field {column}: expert {cell} twice in one token")
        ids.append(int(cell))
    return ids


def route_counts(routes: TokenRoutes, *, experts: int, tokens_per_window: int) -> I64:
    """Return tokens per expert and window, (W, 1, E); tokens after the last full window are left out.

    Raises:
        ConfigError: a window without tokens.
        InstanceError: an id beyond the experts, or fewer tokens than one window.
    """
    if tokens_per_window < 1:
        raise ConfigError(f"field tokens_per_window: {tokens_per_window}, expected at least 1")
    tokens = len(routes.experts)
    if routes.experts.max() >= experts:
        raise InstanceError(f"{routes.source}: expert {routes.experts.max()} of {experts}")
    windows = tokens // tokens_per_window
    if not windows:
        raise InstanceError(f"{routes.source}: {tokens} tokens, expected at least the {tokens_per_window} of a window")
    counts = np.zeros((windows, 1, experts), dtype=np.int64)
    for window in range(windows):
        chosen = routes.experts[window * tokens_per_window : (window + 1) * tokens_per_window]
        counts[window, 0] = np.bincount(chosen.ravel(), minlength=experts)
    return counts


def repetition(routes: TokenRoutes, *, experts: int) -> Repetition:
    """Measure how often consecutive tokens choose the same experts.

    Raises:
        InstanceError: fewer than two tokens, or an id beyond the experts.
    """
    ids = routes.experts
    if len(ids) < 2 or ids.max() >= experts:
        raise InstanceError(f"{routes.source}: {len(ids)} tokens of experts up to {ids.max()}, expected 2 or more")
    best = ids[:, :2]
    shared = (best[1:, :, None] == best[:-1, None, :]).any(axis=(1, 2))
    width = best.shape[1]
    return Repetition(
        first=float(np.mean(ids[1:, 0] == ids[:-1, 0])),
        first_or_second=float(shared.mean()),
        random_first=1.0 / experts,
        random_first_or_second=1.0 - comb(experts - width, width) / comb(experts, width),
    )
