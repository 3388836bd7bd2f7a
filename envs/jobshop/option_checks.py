"""Checks of generator options, each with an error that names option, value and range."""

from __future__ import annotations

from collections.abc import Iterable

from schedrl.errors import ConfigError

__all__ = ["require_between", "require_choice", "require_ordered", "require_size"]


def require_between(option: str, value: float, low: float, high: float) -> None:
    """Check that a number lies in a closed range.

    Raises:
        ConfigError: it does not.
    """
    if not low <= value <= high:
        raise ConfigError(f"option {option}: {value}, expected {low:g} to {high:g}")


def require_ordered(low_option: str, low: int, high_option: str, high: int, *, least: int) -> None:
    """Check that two options make a range from ``least`` on.

    Raises:
        ConfigError: they do not.
    """
    if not least <= low <= high:
        given = f"options {low_option} and {high_option}: {low} and {high}"
        raise ConfigError(f"{given}, expected {least} <= {low_option} <= {high_option}")


def require_choice(option: str, value: str, choices: Iterable[str]) -> None:
    """Check that a name is one of several.

    Raises:
        ConfigError: it is not.
    """
    known = list(choices)
    if value not in known:
        raise ConfigError(f"option {option}: {value!r}, expected one of {', '.join(known)}")


def require_size(jobs: int, machines: int) -> None:
    """Check that there is a job and a machine.

    Raises:
        ConfigError: there is none.
    """
    for option, value in (("jobs", jobs), ("machines", machines)):
        if value < 1:
            raise ConfigError(f"option {option}: {value}, expected at least 1")
