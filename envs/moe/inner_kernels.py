"""Numba decorators for kernels that only other kernels call: without entry points from Python and C.

To unpack a state of many arrays for a caller in Python takes numba several times as long to compile as most kernels
do themselves, and these have no such caller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

__all__ = ["inner", "inner_inlined"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
# As in ``schedrl.kernels``: nothing may be allocated, and divisions follow IEEE rules.
_OPTIONS: dict[str, Any] = {
    "cache": True,
    "error_model": "numpy",
    "_nrt": False,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}


def inner(function: _Function) -> _Function:
    """Compile a function that kernels call."""
    compiled: _Function = njit(**_OPTIONS)(function)
    return compiled


def inner_inlined(function: _Function) -> _Function:
    """Compile a function that kernels call, and copy its code into each of them."""
    compiled: _Function = njit(forceinline=True, **_OPTIONS)(function)
    return compiled
