"""Learned and classical scheduling on the field's own benchmarks.

Importing the package registers its gymnasium environments, now or when gymnasium comes, and loads nothing heavy.
"""

from importlib.metadata import PackageNotFoundError, version

from schedrl.registration import register_with_gymnasium

__all__ = ["__version__"]

try:
    __version__ = version("schedrl")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0+unknown"

register_with_gymnasium()
