"""The numba decorators of simulation kernels: functions over preallocated arrays that allocate nothing.

All switch off reference counting, which otherwise spends two atomic operations on every array of a state
tuple at each call, more than the work of a decision; numba refuses to compile a kernel that allocates.
Divisions follow IEEE rules instead of raising, so that loops stay free of error branches.

The inner ones have no entry point from Python, which takes numba long to compile where a state has many arrays. Python
must not call them: that would end the process. ``schedrl.kernel_arguments`` has the mark that such states need.

Numba's cache looks at the file of the function that is called, not at those it calls: a caller in another
file keeps its old code when a kernel changes, so callers belong beside what they call or need their own change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

__all__ = ["inlined", "inner", "inner_inlined", "kernel"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
# Numba documents all of these but _nrt, which its own library uses.
_OPTIONS: dict[str, Any] = {"cache": True, "error_model": "numpy", "_nrt": False}
_INNER: dict[str, Any] = {**_OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def kernel(function: _Function) -> _Function:
    """Compile an entry point, called from Python."""
    compiled: _Function = njit(**_OPTIONS)(function)
    return compiled


def inlined(function: _Function) -> _Function:
    """Compile a function that kernels call, and copy its code into each of them."""
    compiled: _Function = njit(forceinline=True, **_OPTIONS)(function)
    return compiled


def inner(function: _Function) -> _Function:
    """Compile a function that only kernels call."""
    compiled: _Function = njit(**_INNER)(function)
    return compiled


def inner_inlined(function: _Function) -> _Function:
    """Compile a function that only kernels call, and copy its code into each of them."""
    compiled: _Function = njit(forceinline=True, **_INNER)(function)
    return compiled
