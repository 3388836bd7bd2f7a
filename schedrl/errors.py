"""Errors that a user can cause and mend; the command line prints them as one line."""

__all__ = ["BundleError", "ConfigError", "InstanceError", "SchedrlError", "SolutionError", "UnknownNameError"]


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
