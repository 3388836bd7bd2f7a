"""Makes ``strategies`` importable here, and ``from_type(SocDagInstance)`` draw from it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import strategies  # noqa: F401
