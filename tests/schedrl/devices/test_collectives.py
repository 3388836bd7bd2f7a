from __future__ import annotations

import numpy as np
import pytest

from schedrl.devices import all_reduce_s, all_reduce_table, load_all_reduce_tables, load_catalogue
from schedrl.errors import ConfigError, UnknownNameError

MIB = 2.0**20


def test_every_table_is_sourced_and_never_falls() -> None:
    for table in load_all_reduce_tables().values():
        assert table.kind in ("fitted", "extrapolated")
        assert len(table.source) > 10
        assert set(table.devices) <= set(load_catalogue())
        assert (np.diff(table.sizes) > 0).all()
        for seconds in table.seconds.values():
            assert seconds.shape == table.sizes.shape
            assert (seconds > 0).all()
            assert (np.diff(seconds) >= 0).all()


@pytest.mark.parametrize(
    ("device", "mib", "group", "measured_ms"),
    [
        # routing.md C3, from Vidur's network tables.
        ("a100-sxm-80gb", 4, 2, 0.063),
        ("a100-sxm-80gb", 4, 8, 0.099),
        ("a100-sxm-80gb", 16, 2, 0.139),
        ("a100-sxm-80gb", 16, 4, 0.201),
        ("a100-sxm-80gb", 16, 8, 0.275),
        ("a100-sxm-80gb", 64, 8, 0.68),
        ("h100-sxm", 1, 2, 0.043),
        ("h100-sxm", 1, 8, 0.034),
        ("h100-sxm", 16, 2, 0.074),
        ("h100-sxm", 16, 8, 0.115),
        ("h100-sxm", 64, 4, 0.318),
        # APEX's table for the H200.
        ("h200-sxm", 16, 4, 0.098),
    ],
)
def test_large_messages_take_what_was_measured(device: str, mib: float, group: int, measured_ms: float) -> None:
    seconds = all_reduce_table(device).time_s(np.array([mib * MIB]), group)
    assert 1e3 * seconds[0] == pytest.approx(measured_ms, rel=0.07)


def test_between_and_beyond_the_sizes_times_are_linear() -> None:
    table = all_reduce_table("h200-sxm")
    times = table.time_s(np.array([1.0, MIB, 1.5 * MIB, 2 * MIB, 32 * MIB, 64 * MIB, 96 * MIB]), 2) * 1e6
    assert times == pytest.approx([6.0, 15.0, 21.0, 27.0, 142.0, 249.0, 356.0])


def test_activations_of_doubling_numbers_of_tokens() -> None:
    times = all_reduce_s("h200-sxm", 4096, 2)
    assert times.shape == (15,)
    # 128 tokens of 8192 bytes are 1 MiB; 16,384 tokens are 128 MiB, twice the table's last step beyond its end.
    assert times[7] == pytest.approx(15e-6)
    assert times[14] == pytest.approx((249 + 2 * (249 - 142)) * 1e-6)
    assert (all_reduce_s("h200-sxm", 4096, 1) == 0.0).all()


def test_pcie_is_slower_than_nvlink() -> None:
    assert (all_reduce_s("l40s", 8192, 8) > all_reduce_s("h100-sxm", 8192, 8)).all()
    assert (all_reduce_s("t4", 8192, 2) >= all_reduce_s("l4", 8192, 2)).all()
    # The formula of the ring at 64 MiB among two: two steps of 9.64 us and 64 MiB at 23.2e9 bytes a second.
    ring_s = 2 * 9.64e-6 + 64 * MIB / 23.18e9
    assert all_reduce_table("pcie-gen4").time_s(np.array([64 * MIB]), 2)[0] == pytest.approx(ring_s, rel=5e-3)


def test_unknown_devices_and_groups_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown device with all-reduce times 'ascend-910b'"):
        all_reduce_s("ascend-910b", 4096, 8)
    with pytest.raises(ConfigError, match="a100-nvlink-pairs: no times for 8 devices, known: 2, 4"):
        all_reduce_s("a100-nvlink-pairs", 4096, 8)
