from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from schedrl.envs.moe.metrics import balance_sglang, balance_vllm, imbalance_tensorrt_llm, peak_to_average

LOADS = arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.floats(0.5, 1e6))


@pytest.mark.parametrize(
    ("imbalance", "balance"),
    [(1.564, 0.390), (0.109, 0.902)],
    ids=["DeepSeek-R1 on 32 ranks without replicas", "with 288 slots"],
)
def test_published_imbalance_of_tensorrt_llm_in_the_units_of_others(imbalance: float, balance: float) -> None:
    loads = np.ones((1, 32))
    # One device with the largest load, the others alike: mean 1, largest 1 + imbalance.
    loads[0, 0], loads[0, 1:] = 1 + imbalance, 1 - imbalance / 31
    assert imbalance_tensorrt_llm(loads) == pytest.approx(imbalance)
    assert balance_vllm(loads) == pytest.approx(balance, abs=5e-4)


@given(LOADS)
def test_one_row_converts_between_all_definitions(loads: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    row = loads[:1]
    peak = peak_to_average(row)
    assert balance_vllm(row) == pytest.approx(1 / peak)
    assert balance_sglang(row) == pytest.approx(1 / peak)
    assert imbalance_tensorrt_llm(row) == pytest.approx(peak - 1)


@given(LOADS)
def test_averages_of_ratios_are_ordered(loads: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    # The mean of 1/x is at least 1 / mean of x, and a peak lies between 1 and the number of devices.
    assert balance_sglang(loads) >= 1 / peak_to_average(loads) - 1e-12
    assert 1 - 1e-12 <= peak_to_average(loads) <= loads.shape[1] + 1e-9
    assert imbalance_tensorrt_llm(loads) == pytest.approx(peak_to_average(loads) - 1, abs=1e-12)


def test_two_rows_by_hand() -> None:
    loads = np.array([[4.0, 0.0], [3.0, 9.0]])  # means 2 and 6, largest 4 and 9
    assert balance_vllm(loads) == pytest.approx((2 + 6) / (4 + 9))
    assert balance_sglang(loads) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert peak_to_average(loads) == pytest.approx((2 + 1.5) / 2)
    assert imbalance_tensorrt_llm(loads) == pytest.approx(0.75)


def test_rows_without_load_are_left_out() -> None:
    loads = np.array([[0.0, 0.0], [1.0, 3.0]])
    assert balance_vllm(loads) == balance_sglang(loads) == pytest.approx(2 / 3)
    assert peak_to_average(loads) == pytest.approx(1.5)
    nothing = np.zeros((2, 3))
    assert balance_vllm(nothing) == balance_sglang(nothing) == peak_to_average(nothing) == 1
    assert imbalance_tensorrt_llm(nothing) == 0


def test_eplb_readme_example() -> None:
    # Device loads of DeepSeek's README example, hierarchical: mean/max 0.827724 and 0.805014.
    loads = np.array(
        [[121.5, 86.5, 125, 113, 147.5, 131.5, 156, 152], [173, 179.5, 120.5, 172, 123, 152, 118.5, 117.5]]
    )
    assert 1 / peak_to_average(loads[:1]) == pytest.approx(0.827724, abs=5e-7)
    assert 1 / peak_to_average(loads[1:]) == pytest.approx(0.805014, abs=5e-7)
