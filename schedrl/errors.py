"""Errors that a user can cause and mend; the command line prints them as one line."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "BundleError",
    "ConfigError",
    "InstanceError",
    "SchedrlError",
    "SolutionError",
    "UnknownNameError",
    "unknown_name",
]


class SchedrlError(Exception):
    """Base of every error whose message names what is wrong and how to mend it."""


class InstanceError(SchedrlError, ValueError):
    """An instance, or the file it came from, breaks its format: ``file:line: field ...: what, expected``."""


class SolutionError(SchedrlError, ValueError):
    """A solution file cannot be read as a solution of its family."""


class ConfigError(SchedrlError, ValueError):
    """A configuration file or option has an unknown key or a value outside its range."""


class BundleError(SchedrlError, ValueError):
    """An exported policy is corrupt, of another family, or of a newer schema."""


class UnknownNameError(SchedrlError, KeyError):
    """A family, scheduler, suite or generator of that name is not registered."""

    def __str__(self) -> str:
        return str(self.args[0])


def unknown_name(what: str, name: str, choices: Iterable[str]) -> UnknownNameError:
    """Return the error for a name that a catalogue lacks; the message lists the closest ones it has."""
    known = list(choices)
    close = get_close_matches(name.lower(), known, n=3, cutoff=0.4)
    hint = f"closest: {', '.join(close)}" if close else f"choose from {', '.join(known)}"
    return UnknownNameError(f"unknown {what} {name!r}; {hint}")
