"""Configurations, benchmarks and reproduction scripts.

Import as ``schedrl.experiments``: the bare name would load a second copy of every class.
"""

if not __name__.startswith("schedrl."):
    raise ImportError("import schedrl.experiments, not experiments")
