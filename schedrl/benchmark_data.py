"""Benchmark data that the package does not ship: files in the folder that ``SCHEDRL_DATA`` names."""

from __future__ import annotations

import os
from pathlib import Path

from schedrl.errors import InstanceError

__all__ = ["DATA_VARIABLE", "data_file", "data_folder"]

DATA_VARIABLE = "SCHEDRL_DATA"


def data_folder(suite: str, example: str) -> Path:
    """Return the folder of the benchmark data.

    Args:
        suite: what needs it, for the message.
        example: a file that is expected in the folder, relative to it.

    Raises:
        InstanceError: the variable is unset.
    """
    root = os.environ.get(DATA_VARIABLE)
    if not root:
        raise InstanceError(f"suite {suite}: {DATA_VARIABLE} is unset, expected the folder that holds {example}")
    return Path(root)


def data_file(suite: str, root: Path, name: str) -> Path:
    """Return a file of the benchmark data, ``name`` relative to the folder ``root``.

    Raises:
        InstanceError: there is no such file.
    """
    path = root / name
    if not path.is_file():
        raise InstanceError(f"suite {suite}: no file {path}, expected it there as {DATA_VARIABLE} is {root}")
    return path
