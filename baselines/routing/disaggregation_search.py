"""How many GPUs prompts get and how many decoding, and in which groups: the search of DistServe (Zhong et al. 2024).

All divisions of some GPUs into instances for prefill and instances for decode are scored by their goodput, the most
requests/s that meet both objectives. The score is a function of the division, such as a simulation, or the queueing
approximation here: prompts queue at each prefill instance as in an M/G/1 queue, which for prompts of one length is the
paper's M/D/1 queue; decoding instances batch all that they have.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.baselines.routing.fleet_profile import Objectives, mean_iteration_s
from schedrl.errors import ConfigError, InstanceError

__all__ = [
    "Division",
    "FittedTimes",
    "PhaseTimes",
    "RooflineTimes",
    "ScoredDivision",
    "divisions",
    "goodput_scorer",
    "prefill_attainment",
    "read_fitted_times",
    "search_divisions",
]

_BISECTIONS = 50
_MAX_SEQUENCES = 256


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Division:
    """Instances for prompts and for decoding, with the GPUs of each."""

    prefill_instances: int
    prefill_tensor_parallel: int
    decode_instances: int
    decode_tensor_parallel: int

    @property
    def gpus(self) -> int:
        """All GPUs."""
        prefill = self.prefill_instances * self.prefill_tensor_parallel
        return prefill + self.decode_instances * self.decode_tensor_parallel


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredDivision:
    """A division and the most requests/s that meet the objectives on it."""

    division: Division
    goodput: float

    @property
    def goodput_per_gpu(self) -> float:
        """Requests/s per GPU, what DistServe maximises."""
        return self.goodput / self.division.gpus


class PhaseTimes(Protocol):
    """Seconds of the two phases on a group of GPUs, by its size."""

    def prefill_s(self, tensor_parallel: int, prompts: F64) -> F64:
        """Return the seconds (R,) of prompts, each alone in its iteration."""

    def decode_s(self, tensor_parallel: int, sequences: float, context: float) -> float:
        """Return the seconds of an iteration that decodes some sequences with the sum of their tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RooflineTimes:
    """Times of ``iteration_s``."""

    rows: dict[int, F64]
    """coefficients (28,) by the size of the group"""

    def prefill_s(self, tensor_parallel: int, prompts: F64) -> F64:
        """Return the seconds (R,) of prompts, each alone in its iteration."""
        row = self.rows[tensor_parallel]
        sizes, inverse = np.unique(prompts, return_inverse=True)
        seconds = [mean_iteration_s(row, size, 1.0, size, size * size / 2.0) for size in sizes.tolist()]
        return np.asarray(np.array(seconds)[inverse], dtype=np.float64)

    def decode_s(self, tensor_parallel: int, sequences: float, context: float) -> float:
        """Return the seconds of an iteration that decodes some sequences with the sum of their tokens."""
        return mean_iteration_s(self.rows[tensor_parallel], sequences, sequences, context, context)


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedTimes:
    """Times of DistServe's fits, in milliseconds: polynomials of the tokens of a batch."""

    prefill: dict[int, tuple[float, float, float]]
    """by the size of the group: constant, per token, per squared token"""
    decode_small: dict[int, tuple[float, float, float]]
    """constant, per token of context, per sequence"""
    decode_large: dict[int, tuple[float, float, float]]
    threshold: dict[int, int]
    """sequences from which on a batch is large"""

    def prefill_s(self, tensor_parallel: int, prompts: F64) -> F64:
        """Return the seconds (R,) of prompts, each alone in its iteration."""
        constant, linear, square = self.prefill[tensor_parallel]
        return np.asarray(1e-3 * (constant + linear * prompts + square * prompts**2), dtype=np.float64)

    def decode_s(self, tensor_parallel: int, sequences: float, context: float) -> float:
        """Return the seconds of an iteration that decodes some sequences with the sum of their tokens."""
        large = sequences >= self.threshold[tensor_parallel]
        constant, tokens, batch = (self.decode_large if large else self.decode_small)[tensor_parallel]
        return 1e-3 * (constant + tokens * context + batch * sequences)


def read_fitted_times(path: Path, model: str) -> FittedTimes:
    """Read DistServe's fits of a model (``simdistserve/estimators/profiled_data/profiler-*.json``).

    Raises:
        ConfigError: a file that has no such fits; the message names file and field.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get(model), dict) or not data[model]:
        raise ConfigError(f"{path}: field {model}: missing, expected fits by the size of the group")
    fits: dict[str, dict[int, Any]] = {name: {} for name in ("prefill", "decoding_smallbs", "decoding_largebs")}
    threshold: dict[int, int] = {}
    for degree, item in data[model].items():
        where = f"{path}: field {model}.{degree}"
        if not (degree.isdecimal() and isinstance(item, dict)):
            raise ConfigError(f"{where}: expected a size of a group and its fits")
        for name, table in fits.items():
            value = item.get(name)
            if not isinstance(value, list) or len(value) != 3 or any(type(x) not in (int, float) for x in value):
                raise ConfigError(f"{where}.{name}: {value!r:.40}, expected three numbers")
            table[int(degree)] = tuple(value)
        limit = item.get("decoding_large_small_bs_threshold")
        if type(limit) is not int:
            raise ConfigError(f"{where}.decoding_large_small_bs_threshold: {limit!r:.40}, expected an integer")
        threshold[int(degree)] = limit
    return FittedTimes(
        prefill=fits["prefill"],
        decode_small=fits["decoding_smallbs"],
        decode_large=fits["decoding_largebs"],
        threshold=threshold,
    )


def divisions(gpus: int, prefill_degrees: Sequence[int], decode_degrees: Sequence[int]) -> list[Division]:
    """Return all divisions of at most so many GPUs with at least one instance of each kind, in a fixed order.

    Raises:
        ConfigError: a number of GPUs or a size of a group below 1.
    """
    for name, values in (("gpus", [gpus]), ("tensor_parallel", [*prefill_degrees, *decode_degrees])):
        for value in values:
            if type(value) is not int or value < 1:
                raise ConfigError(f"{name}: {value!r}, expected an integer of at least 1")
    found = []
    for p in sorted(set(prefill_degrees)):
        for d in sorted(set(decode_degrees)):
            for prefills in range(1, (gpus - d) // p + 1):
                for decodes in range(1, (gpus - prefills * p) // d + 1):
                    found.append(
                        Division(
                            prefill_instances=prefills,
                            prefill_tensor_parallel=p,
                            decode_instances=decodes,
                            decode_tensor_parallel=d,
                        )
                    )
    return found


def search_divisions(
    candidates: Sequence[Division], score: Callable[[Division], float], *, per_gpu: bool = False
) -> list[ScoredDivision]:
    """Return all divisions, best first; of equal ones those with fewer GPUs come first.

    Args:
        candidates: divisions to score.
        score: requests/s within the objectives, of a simulation or of ``goodput_scorer``.
        per_gpu: whether goodput per GPU counts, for a unit that is then replicated, instead of all goodput.

    Raises:
        InstanceError: no candidates, or none with any goodput.
    """
    scored = [ScoredDivision(division=division, goodput=float(score(division))) for division in candidates]
    if not any(item.goodput > 0.0 for item in scored):
        raise InstanceError(f"none of {len(scored)} divisions into prefill and decode meets the objectives at any rate")
    return sorted(
        scored,
        key=lambda item: (-(item.goodput_per_gpu if per_gpu else item.goodput), item.division.gpus, item.division),
    )


def prefill_attainment(service_s: F64, requests_per_s: float, ttft_s: float) -> float:
    """Return the share of requests with a first token in time at one M/G/1 queue, in order of arrival.

    The mean wait is Pollaczek's and Khinchine's; waits of those that wait are taken as exponential.

    Args:
        service_s: (R,) seconds of the prompts, each as likely as the others.
        requests_per_s: that arrive at random.
        ttft_s: objective.
    """
    busy = requests_per_s * float(service_s.mean())
    if busy >= 1.0:
        return 0.0
    left = ttft_s - service_s
    wait_s = requests_per_s * float((service_s**2).mean()) / (2.0 * (1.0 - busy))
    late = busy * np.exp(-np.maximum(left, 0.0) * busy / wait_s) if wait_s > 0.0 else np.zeros(len(left))
    return float(np.where(left >= 0.0, 1.0 - late, 0.0).mean())


def goodput_scorer(
    times: PhaseTimes,
    prompt_tokens: I32,
    output_tokens: I32,
    objectives: Objectives,
    *,
    kv_tokens: Callable[[int], float] = lambda degree: math.inf,
    max_sequences: int = _MAX_SEQUENCES,
) -> Callable[[Division], float]:
    """Return the queueing approximation of a division's goodput, for ``search_divisions``.

    Each objective on its own is met by the share of requests asked for, as in DistServe; handing over keys and values
    takes no time.

    Args:
        times: of the phases, by the size of the group.
        prompt_tokens: (R,) of requests that stand for the workload.
        output_tokens: (R,) of the same.
        objectives: of the two times.
        kv_tokens: tokens that the memory of a decode instance holds, by the size of the group.
        max_sequences: most requests of one iteration.

    Raises:
        InstanceError: no requests.
    """
    if not len(prompt_tokens):
        raise InstanceError("workload: no requests")
    prompts = np.asarray(prompt_tokens, dtype=np.float64)
    steps = np.asarray(output_tokens, dtype=np.float64) - 1.0
    # Longer answers are in decoding for longer, so that their tokens weigh more in the mean of a batch.
    context = float((steps * (prompts + steps / 2.0)).sum() / max(steps.sum(), 1.0))

    @cache
    def prefill(degree: int) -> float:
        return _prefill_rate(times.prefill_s(degree, prompts), objectives)

    @cache
    def decode(degree: int) -> float:
        def seconds(sequences: float) -> float:
            return times.decode_s(degree, sequences, sequences * context)

        most = min(max_sequences, kv_tokens(degree) / context) if context > 0.0 else max_sequences
        return _decode_rate(seconds, float(steps.mean()), most, objectives)

    def score(division: Division) -> float:
        prefill_rate = division.prefill_instances * prefill(division.prefill_tensor_parallel)
        return min(prefill_rate, division.decode_instances * decode(division.decode_tensor_parallel))

    return score


def _prefill_rate(service_s: F64, objectives: Objectives) -> float:
    """Return the most requests/s of one prefill instance."""
    low, high = 0.0, 1.0 / float(service_s.mean())
    for _ in range(_BISECTIONS):
        rate = (low + high) / 2.0
        met = prefill_attainment(service_s, rate, objectives.ttft_s) >= objectives.attainment
        low, high = (rate, high) if met else (low, rate)
    return low


def _decode_rate(seconds: Callable[[float], float], steps: float, most: float, objectives: Objectives) -> float:
    """Return the most requests/s of one decode instance, infinite if there is nothing to decode.

    Args:
        seconds: of an iteration by its number of requests.
        steps: mean iterations of a request.
        most: requests that memory and engine allow.
        objectives: the batch, a Poisson number, is to meet that of a token at the quantile ``attainment``.
    """
    if steps <= 0.0:
        return math.inf
    quantile, best = NormalDist().inv_cdf(objectives.attainment), 0.0
    for mean in range(1, math.floor(most) + 1):
        high = mean + quantile * math.sqrt(mean)
        if high > most:
            break
        if seconds(high) <= objectives.tpot_s:
            best = max(best, mean / (steps * seconds(float(mean))))
    return best
