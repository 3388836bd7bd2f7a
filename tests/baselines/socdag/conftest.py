"""Makes the ``strategies`` of ``tests/envs/socdag`` importable here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "envs" / "socdag"))

import strategies  # noqa: F401
