"""Exported policies: one ``.schedrl`` file that runs with numpy and onnxruntime alone.

``load`` reads a bundle, ``read_manifest`` says what one holds; ``schedrl.export.bundle`` writes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from schedrl.export.manifest import read_manifest

if TYPE_CHECKING:
    from schedrl.export.runtime import BundlePolicy

__all__ = ["load", "read_manifest"]


def load(path: Path | str, *, family: str | None = None, threads: int = 1) -> BundlePolicy:
    """Return the policy in a bundle; see ``schedrl.export.runtime.load``."""
    from schedrl.export import runtime

    return runtime.load(path, family=family, threads=threads)
