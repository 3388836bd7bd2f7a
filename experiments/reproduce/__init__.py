"""Published figures and claims, measured again with our own code; each script writes its table, picture and verdict."""
