"""Balance of loads under the name of the project that defines it; all replicas share their expert's load evenly.

Loads are (R, D): one row per layer, or per layer and window. Rows without load are left out.
"""

from __future__ import annotations

import numpy as np

from schedrl.arrays import F64

__all__ = ["balance_sglang", "balance_vllm", "imbalance_tensorrt_llm", "peak_to_average"]


def balance_vllm(loads: F64) -> float:
    """Return the sum over rows of mean loads per sum of largest loads, as vLLM and the ADRS evaluator do; 1 is best."""
    largest = loads.max(axis=1).sum()
    return float(loads.mean(axis=1).sum() / largest) if largest > 0 else 1.0


def balance_sglang(loads: F64) -> float:
    """Return the mean over rows of mean load per largest load, as SGLang does; 1 is best."""
    return float(np.mean(1.0 / _peaks(loads)))


def imbalance_tensorrt_llm(loads: F64) -> float:
    """Return the mean over rows of (largest - mean) / mean, as TensorRT-LLM does; 0 is best."""
    return float(np.mean(_peaks(loads)) - 1.0)


def peak_to_average(loads: F64) -> float:
    """Return the mean over rows of largest load per mean load, as Huawei's evaluator does; 1 is best."""
    return float(np.mean(_peaks(loads)))


def _peaks(loads: F64) -> F64:
    means = loads.mean(axis=1)
    rows = means > 0
    if not rows.any():
        return np.ones(1)
    peaks: F64 = loads[rows].max(axis=1) / means[rows]
    return peaks
