"""Studies run by hand; each writes its table next to itself."""
