"""Colours that stay apart for colour-blind readers, for any number of groups."""

from __future__ import annotations

__all__ = ["OKABE_ITO", "colour", "ink_on"]

# Okabe and Ito, "Color Universal Design", 2008, without black, ordered so that neighbours differ in lightness.
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")

# Mixing weight with white (positive) or black (negative) in each further round through the seven hues.
_ROUNDS = (0.0, 0.5, -0.35, 0.25, -0.6, 0.7)


def colour(group: int) -> str:
    """Return the colour of a group as ``#RRGGBB``; 42 are distinct, then they repeat."""
    hue, turn = OKABE_ITO[group % len(OKABE_ITO)], _ROUNDS[(group // len(OKABE_ITO)) % len(_ROUNDS)]
    target = 255 if turn > 0 else 0
    channels = (round(value + (target - value) * abs(turn)) for value in _channels(hue))
    return "#" + "".join(f"{value:02X}" for value in channels)


def ink_on(background: str) -> str:
    """Return black or white, whichever has the higher WCAG contrast on ``#RRGGBB``."""
    linear = [c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in _channels(background)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if luminance > 0.179 else "#FFFFFF"


def _channels(text: str) -> tuple[int, int, int]:
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)
