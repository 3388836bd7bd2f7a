"""Each check accepts its range with both ends and refuses all else, not-a-number included."""

from __future__ import annotations

import pytest

from schedrl.envs.jobshop.option_checks import require_between, require_choice, require_ordered
from schedrl.errors import ConfigError


def test_between() -> None:
    require_between("share", 0.0, 0.0, 1.0)
    require_between("share", 1.0, 0.0, 1.0)
    for value in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match=f"option share: {value}, expected 0 to 1"):
            require_between("share", value, 0.0, 1.0)


def test_ordered() -> None:
    require_ordered("low", 1, "high", 1, least=1)
    for low, high in ((0, 5), (3, 2)):
        with pytest.raises(ConfigError, match=f"options low and high: {low} and {high}, expected 1 <= low <= high"):
            require_ordered("low", low, "high", high, least=1)


def test_choice() -> None:
    require_choice("colour", "red", ("red", "blue"))
    with pytest.raises(ConfigError, match="option colour: 'green', expected one of red, blue"):
        require_choice("colour", "green", ("red", "blue"))
