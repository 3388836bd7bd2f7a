"""Bytes and seconds as people read them."""

from __future__ import annotations

__all__ = ["byte_unit", "bytes_text", "seconds_text", "time_unit"]

_BYTES = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))
_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def byte_unit(largest: float) -> tuple[float, str]:
    """Return bytes per unit, and the unit's name, for values up to ``largest`` bytes."""
    return next((unit for unit in _BYTES if largest >= unit[0]), _BYTES[-1])


def time_unit(largest: float) -> tuple[float, str]:
    """Return seconds per unit, and the unit's name, for values up to ``largest`` seconds."""
    return next((unit for unit in _SECONDS if largest >= unit[0] * (1 - 1e-9)), _SECONDS[-1])


def bytes_text(count: float) -> str:
    """Return a number of bytes with four significant digits, such as ``1.5 MiB``."""
    factor, name = byte_unit(abs(count))
    return f"{count / factor:.4g} {name}"


def seconds_text(seconds: float) -> str:
    """Return a time with four significant digits, such as ``12.5 µs``."""
    if seconds == 0:
        return "0 s"
    factor, name = time_unit(abs(seconds))
    return f"{seconds / factor:.4g} {name}"
