"""Highest request rates of a device within service-level objectives, by request size: what Mélange measures, computed.

An engine with continuous batching is looked at in its steady state. If c requests of O tokens end per iteration,
c (O - 1) are in decoding and c prompts are computed per iteration, in chunks that share iterations with the decoding.
The mean time of an iteration is the time per output token, and c over it is the rate.

Griggs et al. (2024) measure rates at which the mean meets the objectives: ``attainment`` 0.5. Larger shares of requests
need room for fluctuation. The number in decoding is a birth and death chain: requests arrive at random, and the more
there are, the longer an iteration takes and the slower each leaves. Prompts queue for the tokens of iterations as in an
M/D/1 queue, with the exponential tail of heavy traffic.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.baselines.routing.fleet_selection import GpuType
from schedrl.devices.catalogue import get_device
from schedrl.devices.language_model import LanguageModel
from schedrl.devices.serving import kv_capacity_tokens, serving_row
from schedrl.devices.serving_time import iteration_s
from schedrl.errors import ConfigError, InstanceError

__all__ = [
    "EDGES",
    "Engine",
    "Objectives",
    "RequestMix",
    "SteadyState",
    "highest_rate",
    "mean_iteration_s",
    "profile_device",
    "profile_engine",
    "request_mix",
    "steady_state",
]

EDGES = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
"""default upper ends of the buckets of lengths, tokens; one more bucket has all beyond"""

_BISECTIONS = 40
_LONGEST_S = 1e9  # prompts must not pile up even if no objective says so


@dataclass(frozen=True, slots=True, kw_only=True)
class Objectives:
    """Service-level objectives and the share of requests that is to meet them.

    Raises:
        ConfigError: a time that is not positive, or a share outside [0.5, 1).
    """

    ttft_s: float = math.inf
    tpot_s: float = math.inf
    attainment: float = 0.9

    def __post_init__(self) -> None:
        for field in ("ttft_s", "tpot_s"):
            if not getattr(self, field) > 0:
                raise ConfigError(f"objectives: field {field}: {getattr(self, field)!r}, expected seconds above 0")
        if not 0.5 <= self.attainment < 1.0:
            raise ConfigError(f"objectives: field attainment: {self.attainment!r}, expected 0.5 to less than 1")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Engine:
    """An instance as the steady state sees it; the figures of ``ServingInstance``."""

    coefficients: F64  # (28,) of iteration_s
    kv_tokens: int
    token_budget: int = 2048
    max_sequences: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class SteadyState:
    """An engine with equal requests."""

    requests_per_s: float
    tpot_s: float
    ttft_s: float
    """with the wait for other prompts, for the share of requests asked for; infinite where prompts pile up"""
    decoding: float
    """requests in decoding"""
    kv_tokens: float
    """tokens in memory, with one whole request that comes in"""


def steady_state(engine: Engine, prompt: float, output: float, ending: float, attainment: float = 0.5) -> SteadyState:
    """Return what an engine does with equal requests, of which a number ends per iteration.

    Args:
        engine: the instance.
        prompt: tokens of each prompt.
        output: tokens of each answer.
        ending: requests that end per iteration in the mean, at least 0.
        attainment: share of requests that ``ttft_s`` is to hold for; the other figures are means.
    """
    decoding = ending * (output - 1.0)
    mean_s, chunk_s = _iteration_s(engine, prompt, output, ending, decoding)
    return SteadyState(
        requests_per_s=ending / mean_s,
        tpot_s=mean_s,
        ttft_s=_first_token_s(engine, prompt, ending, decoding, attainment, chunk_s) + mean_s / 2.0,
        decoding=decoding,
        kv_tokens=decoding * (prompt + output / 2.0) + prompt + output,
    )


def mean_iteration_s(row: F64, tokens: float, sequences: float, context: float, pairs: float) -> float:
    """Return ``iteration_s`` of means, which are seldom whole numbers; arguments as there."""
    seconds: Callable[..., float] = iteration_s
    return float(seconds(row, float(tokens), float(sequences), float(context), float(pairs)))


def _iteration_s(engine: Engine, prompt: float, output: float, ending: float, decoding: float) -> tuple[float, float]:
    """Return the mean seconds of an iteration, and those of one with a chunk of a prompt."""
    if engine.token_budget - decoding < 1.0:
        return math.inf, math.inf
    plain_s, chunk_s = _plain_and_chunk_s(engine, prompt, output, ending, decoding)
    share = ending * prompt / _chunk(engine, prompt, ending, decoding)[0]
    return plain_s + share * (chunk_s - plain_s), chunk_s


def _chunk(engine: Engine, prompt: float, ending: float, decoding: float) -> tuple[float, float]:
    """Return the prompt tokens of an iteration that has some, and how many chunks a prompt needs."""
    chunks = max(1.0, prompt / (engine.token_budget - decoding))
    # Short prompts share an iteration where more than one arrives in it.
    return max(prompt / chunks, ending * prompt), chunks


def _plain_and_chunk_s(
    engine: Engine, prompt: float, output: float, ending: float, decoding: float
) -> tuple[float, float]:
    """Return the seconds of an iteration without and with a chunk of a prompt."""
    row, context = engine.coefficients, decoding * (prompt + output / 2.0)
    size, chunks = _chunk(engine, prompt, ending, decoding)
    plain_s = mean_iteration_s(row, decoding, decoding, context, context)
    read, pairs = size * (chunks + 1.0) / 2.0, size * prompt / 2.0
    sequences = decoding + size * chunks / prompt
    return plain_s, mean_iteration_s(row, decoding + size, sequences, context + read, context + pairs)


def _first_token_s(
    engine: Engine, prompt: float, ending: float, decoding: float, attainment: float, chunk_s: float
) -> float:
    """Return the seconds from the head of an iteration to a first token, at a quantile of the M/D/1 queue."""
    room = engine.token_budget - decoding
    used = ending * prompt / room if room > 0.0 else math.inf
    if used >= 1.0:
        return math.inf
    service_s = max(1.0, prompt / room) * chunk_s
    # Those that wait at all, a share of used, wait half a service time over the idle share in the mean.
    late = used / (1.0 - attainment)
    wait_s = service_s / (2.0 * (1.0 - used)) * (used if attainment <= 0.5 else math.log(max(late, 1.0)))
    return service_s + wait_s


class _Batches:
    """Equal requests on an engine by how many are in decoding, up to the most that it takes."""

    def __init__(self, engine: Engine, prompt: float, output: float, ending: float) -> None:
        room = math.floor((engine.kv_tokens - prompt - output) / (prompt + output / 2.0))
        self.most = max(0, min(room, engine.max_sequences, engine.token_budget - 1))
        count = np.arange(1, self.most + 1)
        # How many chunks a prompt takes, less than one where several share it.
        parts = np.array([prompt / _chunk(engine, prompt, ending, float(number))[0] for number in count])
        times = [_plain_and_chunk_s(engine, prompt, output, ending, float(number)) for number in count]
        self._plain_s = np.array([plain for plain, _ in times])
        self._prompt_s = parts * (np.array([chunk for _, chunk in times]) - self._plain_s)
        self._steps = output - 1.0

    def share_in_time(self, requests_per_s: float, objectives: Objectives) -> float:
        """Return the share of requests that find a place at once and few enough others for their objective.

        The chain has a state for each number; requests beyond the most wait, at a constant rate of service.
        """
        if self._steps <= 0.0 or requests_per_s <= 0.0:
            return 1.0
        # Prompts take their part of the time; what is left goes to iterations that decode.
        left = 1.0 - requests_per_s * self._prompt_s
        if not self.most or left[-1] <= 0.0:
            return 0.0
        stay_s = self._steps * self._plain_s / left
        leaving = np.arange(1, self.most + 1) / stay_s
        ratio = requests_per_s / leaving[-1]
        if ratio >= 1.0:
            return 0.0
        exponents = np.concatenate([[0.0], np.cumsum(np.log(requests_per_s / leaving))])
        weights = np.exp(exponents - exponents.max())
        # The prompts that come while a request decodes are a Poisson number, whose quantile counts.
        more = NormalDist().inv_cdf(objectives.attainment) * np.sqrt(requests_per_s * stay_s)
        few = int(np.count_nonzero(stay_s + more * self._prompt_s <= objectives.tpot_s * self._steps))
        return float(weights[:few].sum() / (weights.sum() + weights[-1] * ratio / (1.0 - ratio)))


def highest_rate(engine: Engine, prompt: float, output: float, objectives: Objectives) -> float:
    """Return the most requests/s of one size within the objectives and memory, 0 where there is no such rate.

    Args:
        engine: the instance.
        prompt: tokens of each prompt, at least 1.
        output: tokens of each answer, at least 1.
        objectives: that the requests are to meet, each in its share of them.
    """
    share = objectives.attainment

    def in_mean(ending: float) -> bool:
        state = steady_state(engine, prompt, output, ending, share)
        in_time = state.tpot_s <= objectives.tpot_s and state.ttft_s <= min(objectives.ttft_s, _LONGEST_S)
        return in_time and state.decoding <= engine.max_sequences and state.kv_tokens <= engine.kv_tokens

    ending = _largest(in_mean, engine.token_budget / prompt)
    if share > 0.5:
        batches = _Batches(engine, prompt, output, ending)

        def in_share(ending: float) -> bool:
            rate = steady_state(engine, prompt, output, ending).requests_per_s
            return batches.share_in_time(rate, objectives) >= share

        ending = _largest(in_share, ending)
    return steady_state(engine, prompt, output, ending).requests_per_s


def _largest(feasible: Callable[[float], bool], high: float) -> float:
    """Return the largest number from 0 to ``high`` that is feasible, as all below it are; 0 for none."""
    low = 0.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if feasible(middle) else (low, middle)
    return low


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestMix:
    """Requests by size: their rates and mean sizes."""

    rates: F64  # (I, O) requests/s
    prompt_tokens: F64  # (I, O) mean of the bucket, 0 where it is empty
    output_tokens: F64  # (I, O)


def request_mix(arrival_s: F64, prompt_tokens: I32, output_tokens: I32, *, edges: Sequence[int] = EDGES) -> RequestMix:
    """Return the mix of a workload.

    Args:
        arrival_s: (R,) never falling.
        prompt_tokens: (R,).
        output_tokens: (R,).
        edges: upper ends of the buckets of both lengths, rising.

    Raises:
        InstanceError: no requests, or requests that all arrive at once.
        ConfigError: edges that do not rise.
    """
    if len(edges) < 1 or edges[0] < 1 or any(a >= b for a, b in itertools.pairwise(edges)):
        raise ConfigError(f"edges: {tuple(edges)}, expected rising integers of at least 1")
    if not len(arrival_s):
        raise InstanceError("workload: no requests")
    span_s = float(arrival_s[-1] - arrival_s[0])
    if span_s <= 0.0:
        raise InstanceError("workload: all requests arrive at once, expected a rate")
    requests_per_s = (len(arrival_s) - 1) / span_s
    size = len(edges) + 1
    bucket = np.searchsorted(edges, prompt_tokens) * size + np.searchsorted(edges, output_tokens)
    count, prompts, outputs = (
        np.bincount(bucket, weights, minlength=size * size).astype(np.float64).reshape(size, size)
        for weights in (np.ones(len(bucket)), prompt_tokens, output_tokens)
    )
    filled = np.maximum(count, 1.0)
    return RequestMix(
        rates=count * (requests_per_s / len(bucket)), prompt_tokens=prompts / filled, output_tokens=outputs / filled
    )


def profile_engine(engine: Engine, mix: RequestMix, objectives: Objectives) -> F64:
    """Return the highest rate (I, O) of each bucket alone, requests/s; 0 in empty ones."""
    rates = np.zeros(mix.rates.shape)
    for i, o in np.argwhere(mix.rates > 0.0):
        rates[i, o] = highest_rate(engine, float(mix.prompt_tokens[i, o]), float(mix.output_tokens[i, o]), objectives)
    return rates


def profile_device(
    device: str,
    model: LanguageModel,
    mix: RequestMix,
    objectives: Objectives,
    *,
    tensor_parallel: int = 1,
    price_usd_per_h: float | None = None,
) -> GpuType:
    """Return what an instance of a catalogued device serves, at ``tensor_parallel`` times the device's price.

    Raises:
        UnknownNameError: no such device.
        ConfigError: no price known, or a figure that serving needs.
        InstanceError: the model does not fit.
    """
    price = get_device(device).price_usd_per_h if price_usd_per_h is None else price_usd_per_h
    if price is None:
        raise ConfigError(f"device {device}: field price_usd_per_h: not known, expected one in a file of prices")
    engine = Engine(
        coefficients=serving_row(device, model, tensor_parallel=tensor_parallel),
        kv_tokens=kv_capacity_tokens(device, model, tensor_parallel=tensor_parallel),
    )
    table = profile_engine(engine, mix, objectives)
    return GpuType(name=device, price_usd_per_h=price * tensor_parallel, requests_per_s=table)
