"""Scripts that build the shipped data files from their published sources."""
