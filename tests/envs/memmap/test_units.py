from __future__ import annotations

import pytest

from schedrl.envs.memmap.units import byte_unit, bytes_text, seconds_text, time_unit


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (49 * 2**20, "49 MiB"), (3 * 2**30, "3 GiB"), (-2048, "-2 KiB")],
)
def test_bytes_are_in_powers_of_1024(count: int, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 s"), (4001.0, "4001 s"), (0.9, "900 ms"), (1.25e-5, "12.5 µs"), (6.0e-9, "6 ns"), (-0.002, "-2 ms")],
)
def test_seconds_are_in_powers_of_1000(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_the_largest_value_chooses_the_unit_of_an_axis() -> None:
    assert byte_unit(16 * 2**20) == (2.0**20, "MiB") and byte_unit(0) == (1.0, "B")
    assert time_unit(13e-3) == (1e-3, "ms") and time_unit(0.0) == (1e-9, "ns")
