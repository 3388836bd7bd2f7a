"""Problem families. Import as ``schedrl.envs``: the bare name would load a second copy of every class."""

if not __name__.startswith("schedrl."):
    raise ImportError("import schedrl.envs, not envs")
