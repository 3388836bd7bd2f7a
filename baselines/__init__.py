"""Classical and learned schedulers per family.

Import as ``schedrl.baselines``: the bare name would load a second copy of every class.
"""

if not __name__.startswith("schedrl."):
    raise ImportError("import schedrl.baselines, not baselines")
