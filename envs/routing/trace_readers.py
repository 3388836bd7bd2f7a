"""Readers of public traces of LLM requests: Azure, BurstGPT, Mooncake, Vidur and LLMServingSim.

``read_workload`` tells the format by the first line. Whatever breaks a file gives one line with its name, line
and field.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from schedrl.envs.routing.workload import Workload
from schedrl.errors import ConfigError, InstanceError, unknown_name

__all__ = ["KINDS", "detect_kind", "read_text", "read_workload"]

_MOST_TOKENS = 2**31 - 1
_MOST_SECONDS = 1e11

_COLUMNS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "azure": ("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
        "burstgpt": ("Timestamp", "Request tokens", "Response tokens"),
        "vidur": ("arrived_at", "num_prefill_tokens", "num_decode_tokens"),
        "lengths": ("", "num_prefill_tokens", "num_decode_tokens"),
        "mooncake": ("timestamp", "input_length", "output_length"),
        "llmservingsim": ("arrival_time_ns", "input_toks", "output_toks"),
    }
)
"""arrival, prompt and output of each kind; ``lengths`` has no arrivals"""
# Fields of the JSON kinds: seconds of a unit of time, ids of blocks, tokens of a block.
_JSON: Mapping[str, tuple[float, str, int]] = MappingProxyType(
    {"mooncake": (1e-3, "hash_ids", 512), "llmservingsim": (1e-9, "hash_ids_16", 16)}
)
KINDS = tuple(_COLUMNS)
"""names of the formats"""


@dataclass(slots=True)
class _Rows:
    """What the lines of a file say, one entry per request that is kept."""

    path: Path
    skip_empty: bool
    arrival: list[float] = field(default_factory=list)
    prompt: list[int] = field(default_factory=list)
    output: list[int] = field(default_factory=list)
    session: list[str] = field(default_factory=list)
    blocks: list[list[int]] = field(default_factory=list)
    skipped: int = 0

    def keeps(self, line: int, names: Sequence[str], prompt: int, output: int) -> bool:
        """Return whether a request has tokens; count or refuse one that lacks them."""
        if prompt > 0 and output > 0:
            return True
        name, value = (names[1], prompt) if prompt <= 0 else (names[2], output)
        if value < 0 or not self.skip_empty:
            raise InstanceError(f"{self.path}:{line}: field {name}: {value}, expected at least 1")
        self.skipped += 1
        return False

    def arrives(self, line: int, name: str, seconds: float) -> None:
        """Add an arrival; refuse one that is negative or before the last."""
        where = f"{self.path}:{line}: field {name}"
        if not (math.isfinite(seconds) and 0 <= seconds < _MOST_SECONDS):
            raise InstanceError(f"{where}: {seconds:.12g} s, expected a finite time of at least 0")
        if self.arrival and seconds < self.arrival[-1]:
            early_s = self.arrival[-1] - seconds
            raise InstanceError(f"{where}: {early_s:.6g} s before the request above, expected sorted times")
        self.arrival.append(seconds)


def read_workload(
    path: str | os.PathLike[str],
    kind: str | None = None,
    *,
    skip_empty: bool = False,
    requests_per_s: float | None = None,
) -> Workload:
    """Read a trace; arrivals count from the first request.

    Azure 2023 and 2024 are CSV with timestamps (in 2024 with a time zone), BurstGPT CSV with seconds (its third file
    adds sessions, which become programs), Vidur CSV with or without arrivals. Mooncake and LLMServingSim have a JSON
    object per line with the ids of prefix blocks, of which the full ones are kept.

    Args:
        path: The file.
        kind: One of ``KINDS``; None tells it by the first line.
        skip_empty: Leave out requests without prompt or output tokens, with a warning that counts them.
        requests_per_s: Rate of a file that has lengths alone; its requests then arrive evenly.

    Raises:
        ConfigError: lengths without a rate, or a rate for a file with arrivals.
        InstanceError: unreadable or broken; one line that names file, line and field.
        UnknownNameError: no such kind.
    """
    file = Path(path)
    text = read_text(file)
    kind = kind or detect_kind(text, str(file))
    if kind not in _COLUMNS:
        raise unknown_name("kind of trace", kind, KINDS)
    if (kind == "lengths") != (requests_per_s is not None):
        need = "has no arrivals, expected a rate" if kind == "lengths" else "has arrivals, expected no rate"
        raise ConfigError(f"{file}: requests_per_s: the file {need}")
    if requests_per_s is not None and not 0 < requests_per_s < math.inf:
        raise ConfigError(f"{file}: requests_per_s: {requests_per_s!r}, expected a positive number")
    rows = _Rows(path=file, skip_empty=skip_empty)
    (_read_json_lines if kind in _JSON else _read_csv)(rows, text, kind)
    if not rows.prompt:
        raise InstanceError(f"{file}: no requests, expected lines with them")
    if rows.skipped:
        warnings.warn(f"{file}: {rows.skipped} requests without prompt or output tokens left out", stacklevel=2)
    if requests_per_s is not None:
        rows.arrival = (np.arange(len(rows.prompt)) / requests_per_s).tolist()
    return _workload(rows, _JSON[kind][2] if kind in _JSON else 512)


def detect_kind(text: str, source: str) -> str:
    """Return the kind of a trace by its first line.

    Raises:
        InstanceError: empty, or none of the formats; the message names what is closest.
    """
    first = text.lstrip().partition("\n")[0].strip()
    if not first:
        raise InstanceError(f"{source}: empty, expected a trace")
    if first.startswith("{"):
        found = _object(first, f"{source}:1")
        names: Sequence[str] = list(found)
    else:
        names = [name.strip() for name in first.split(",")]
    kinds = [kind for kind in KINDS if (kind in _JSON) == first.startswith("{")]
    for kind in kinds:
        if set(filter(None, _COLUMNS[kind])) <= set(names):
            return kind
    closest = max(kinds, key=lambda kind: len(set(_COLUMNS[kind]) & set(names)))
    missing = [name for name in _COLUMNS[closest] if name and name not in names]
    if set(_COLUMNS[closest]) & set(names):
        raise InstanceError(f"{source}:1: field {missing[0]}: missing, expected it in a trace of {closest}")
    raise InstanceError(f"{source}:1: {first!r:.60} begins no known trace, expected one of {', '.join(KINDS)}")


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        InstanceError: unreadable, or not UTF-8; the message names the line.
    """
    try:
        data = path.read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise InstanceError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InstanceError(f"{path}:{line}: not UTF-8 text") from None


def _read_csv(rows: _Rows, text: str, kind: str) -> None:
    names = _COLUMNS[kind]
    lines = _csv_lines(rows.path, text)
    number, header = next(lines, (1, []))
    header = [name.strip() for name in header]
    for name in filter(None, names):
        if name not in header:
            raise InstanceError(f"{rows.path}:{number}: field {name}: missing, expected a column of that name")
    columns = [header.index(name) if name else -1 for name in names]
    session = header.index("Session ID") if kind == "burstgpt" and "Session ID" in header else -1
    clock = _azure_clock() if kind == "azure" else _seconds
    for number, cells in lines:
        if not cells:
            continue
        where = f"{rows.path}:{number}"
        if len(cells) != len(header):
            raise InstanceError(f"{where}: {len(cells)} fields, expected {len(header)}")
        prompt, output = (_count(cells[columns[k]], f"{where}: field {names[k]}") for k in (1, 2))
        seconds = clock(cells[columns[0]], f"{where}: field {names[0]}") if names[0] else 0.0
        if not rows.keeps(number, names, prompt, output):
            continue
        if names[0]:
            rows.arrives(number, names[0], seconds)
        rows.prompt.append(prompt)
        rows.output.append(output)
        if session >= 0:
            rows.session.append(cells[session].strip())


def _csv_lines(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise InstanceError(f"{path}:{reader.line_num}: not valid CSV: {error}") from None


def _azure_clock() -> Callable[[str, str], float]:
    """Return a reader of timestamps that counts seconds from the first one; earlier ones come out negative."""
    origin: list[tuple[datetime, float]] = []

    def seconds(text: str, where: str) -> float:
        # Python keeps six digits of a second, Azure writes seven.
        whole, _, rest = text.strip().partition(".")
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        zone = rest[len(digits) :]
        try:
            moment = datetime.fromisoformat(whole + zone)
        except ValueError:
            raise InstanceError(f"{where}: {text!r:.40}, expected a time such as 2023-11-16 18:15:46.6805900") from None
        fraction = float(f"0.{digits}") if digits else 0.0
        if not origin:
            origin.append((moment, fraction))
        if (moment.tzinfo is None) != (origin[0][0].tzinfo is None):
            raise InstanceError(f"{where}: {text!r:.40}, expected a time zone in every line or in none")
        return (moment - origin[0][0]).total_seconds() + (fraction - origin[0][1])

    return seconds


def _seconds(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InstanceError(f"{where}: {text!r:.40}, expected a number of seconds") from None


def _count(text: str, where: str) -> int:
    bare = text.strip()
    # BurstGPT's later files write counts as 472.0.
    bare = bare.removesuffix(".0")
    if not (bare.isascii() and bare.removeprefix("-").isdecimal()) or len(bare) > 12 or int(bare) > _MOST_TOKENS:
        raise InstanceError(f"{where}: {text!r:.40}, expected a number of tokens")
    return int(bare)


def _read_json_lines(rows: _Rows, text: str, kind: str) -> None:
    names = _COLUMNS[kind]
    unit_s, ids, block_tokens = _JSON[kind]
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{rows.path}:{number}"
        data = _object(line, where)
        for name in (*names, ids):
            if name not in data:
                raise InstanceError(f"{where}: field {name}: missing")
        prompt, output = (_whole(data[name], f"{where}: field {name}") for name in names[1:])
        if not rows.keeps(number, names, prompt, output):
            continue
        time = data[names[0]]
        if isinstance(time, bool) or not isinstance(time, (int, float)):
            raise InstanceError(f"{where}: field {names[0]}: {time!r:.40}, expected a number")
        rows.arrives(number, names[0], float(time) * unit_s)
        rows.prompt.append(prompt)
        rows.output.append(output)
        rows.blocks.append(_full_blocks(data[ids], prompt, block_tokens, f"{where}: field {ids}"))


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "too deep"
        raise InstanceError(f"{where}: not valid JSON: {reason}") from None
    if not isinstance(data, dict):
        raise InstanceError(f"{where}: {line!r:.40}, expected a JSON object")
    return data


def _whole(value: Any, where: str) -> int:
    if type(value) is not int or value > _MOST_TOKENS:
        raise InstanceError(f"{where}: {value!r:.40}, expected a number of tokens")
    return value


def _full_blocks(ids: Any, prompt: int, block_tokens: int, where: str) -> list[int]:
    """Return the ids of the full blocks; files also name the last one that is not full, which no cache can share."""
    if not isinstance(ids, list) or not all(type(block) is int and 0 <= block < 2**63 for block in ids):
        raise InstanceError(f"{where}: expected a list of ids of at least 0")
    most = -(-prompt // block_tokens)
    if len(ids) > most:
        raise InstanceError(f"{where}: {len(ids)} blocks, expected at most {most} for {prompt} prompt tokens")
    return ids[: prompt // block_tokens]


def _workload(rows: _Rows, block_tokens: int) -> Workload:
    arrival = np.array(rows.arrival)
    arrays: dict[str, Any] = {}
    if rows.session:
        # A request without a session is a program of its own.
        keys = [session or f"\0{r}" for r, session in enumerate(rows.session)]
        arrays["program"] = np.unique(keys, return_inverse=True)[1]
    if rows.blocks:
        arrays["block_start"] = np.concatenate([[0], np.cumsum([len(ids) for ids in rows.blocks])])
        arrays["blocks"] = np.array([block for ids in rows.blocks for block in ids], dtype=np.int64)
    return Workload(
        arrival_s=arrival - arrival[0],
        prompt_tokens=np.array(rows.prompt),
        output_tokens=np.array(rows.output),
        block_tokens=block_tokens,
        **arrays,
    )
