"""Instance generators by name: draw a workload at a rate that fits the fleet it is put on.

The constants of ``gamma`` are fitted to the first half of Azure's conversation trace of 2023 (Splitwise, ISCA '24):
gaps within a minute have a Gamma shape of 0.99 (median; 0.89 to 1.09 between the deciles), so bursts come from the
rate, whose deviation over 30 s is 19 % with a correlation of 0.83 from one 30 s to the next. Evaluation uses the second
half.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Mapping
from functools import cache, wraps
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from schedrl.arrays import F64
from schedrl.benchmark_data import data_file, data_folder
from schedrl.envs.routing.agentic import agentic
from schedrl.envs.routing.fleet import ServingInstance
from schedrl.envs.routing.fleets import (
    DEFAULT_MODEL,
    capacity_requests_per_s,
    fleet_names,
    load_fleets,
    named_fleet,
    random_fleet,
)
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.session_generators import long_context, require, sessions
from schedrl.envs.routing.trace_readers import read_workload
from schedrl.envs.routing.workload import Workload, clipped, prefix_hit_share, rescaled, route, split_halves, window
from schedrl.errors import ConfigError, unknown_name

__all__ = [
    "GENERATORS",
    "MOONCAKE",
    "fleet_of",
    "gamma",
    "load_of",
    "mixed",
    "mooncake_first_half",
    "poisson",
    "routed",
]

MOONCAKE = "routing/mooncake/conversation_trace.jsonl"
"""file of Mooncake's conversation trace in the folder of benchmark data"""

_LOADS = (0.5, 1.2)
# Fitted to Azure's first half: shape of gaps, deviation and correlation of the rate over windows of 30 s.
_SHAPE, _SWING, _CORRELATION, _WINDOW_S = 0.99, 0.19, 0.83, 30.0
_SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_PROMPTS = (2, 181, 247, 390, 407, 972, 1035, 1081, 1140, 1317, 4075, 4086, 4122, 14050)
_OUTPUTS = (7, 38, 50, 71, 88, 102, 141, 213, 393, 405, 428, 463, 612, 1000)

_Draw = Callable[..., Workload]


def poisson(
    rng: np.random.Generator,
    *,
    requests: int = 256,
    requests_per_s: float = 10.0,
    prompt_tokens: int = 1024,
    output_tokens: int = 150,
    sigma: float = 0.9,
) -> Workload:
    """Draw independent requests with exponential gaps and log-normal lengths, without shared prefixes.

    Args:
        rng: Source of randomness.
        requests: How many.
        requests_per_s: Mean rate.
        prompt_tokens: Median prompt, cut at 16 times that and at 32768.
        output_tokens: Median answer, cut at 16 times that and at 4096.
        sigma: Of both lengths.

    Raises:
        ConfigError: a value outside its range.
    """
    require(requests=(requests, 1, 10**7), requests_per_s=(requests_per_s, 1e-6, 1e6), sigma=(sigma, 0, 10))
    require(prompt_tokens=(prompt_tokens, 1, 32_768), output_tokens=(output_tokens, 1, 4096))
    noise = np.exp(sigma * rng.standard_normal((2, requests)))
    return Workload(
        arrival_s=_from_zero(rng.exponential(1.0 / requests_per_s, size=requests)),
        prompt_tokens=np.clip(prompt_tokens * noise[0], 1, min(16 * prompt_tokens, 32_768)).astype(np.int32),
        output_tokens=np.clip(output_tokens * noise[1], 1, min(16 * output_tokens, 4096)).astype(np.int32),
    )


def gamma(
    rng: np.random.Generator,
    *,
    requests: int = 256,
    requests_per_s: float = 10.0,
    shape: float = _SHAPE,
    swing: float = _SWING,
    window_s: float = _WINDOW_S,
) -> Workload:
    """Draw bursts: Gamma gaps whose rate wanders, with lengths of Azure's conversations and no shared prefixes.

    Args:
        rng: Source of randomness.
        requests: How many.
        requests_per_s: Mean rate.
        shape: Of the gaps' Gamma distribution: below 1 burstier than Poisson.
        swing: Relative deviation of the rate, which is log-normal.
        window_s: Time for which the rate stays the same.

    Raises:
        ConfigError: a value outside its range.
    """
    require(requests=(requests, 1, 10**7), requests_per_s=(requests_per_s, 1e-6, 1e6), shape=(shape, 0.01, 1e6))
    require(swing=(swing, 0, 3), window_s=(window_s, max(1e-3, 1e-6 * requests / requests_per_s), 1e6))
    # Work done by a clock of rate 1, then stretched by the rate of each window.
    work = _from_zero(rng.gamma(shape, 1.0 / shape, size=requests))
    done, level = [0.0], float(rng.standard_normal())
    while done[-1] < work[-1]:
        done.append(done[-1] + requests_per_s * window_s * _rate(level, swing))
        level = _CORRELATION * level + math.sqrt(1 - _CORRELATION**2) * float(rng.standard_normal())
    workload = Workload(
        arrival_s=np.interp(work, done, window_s * np.arange(len(done))),
        prompt_tokens=np.interp(rng.random(requests), _SHARES, _PROMPTS).astype(np.int32),
        output_tokens=np.interp(rng.random(requests), _SHARES, _OUTPUTS).astype(np.int32),
    )
    # A short workload sees few rates, whose mean is not yet the one asked for.
    return rescaled(workload, requests_per_s) if np.isfinite(workload.requests_per_s) else workload


def _rate(level: float, swing: float) -> float:
    """Return a rate of mean 1 and deviation ``swing`` for a standard normal level."""
    spread = math.log1p(swing**2)
    return math.exp(math.sqrt(spread) * level - spread / 2)


def _from_zero(gaps: F64) -> F64:
    arrival: F64 = np.cumsum(gaps)
    arrival -= arrival[0]
    return arrival


def mixed(rng: np.random.Generator, *, requests: int = 256, requests_per_s: float = 10.0) -> Workload:
    """Draw one of the other kinds of workload: bursts, conversations, long prompts or workflows, each as likely.

    Args:
        rng: Source of randomness.
        requests: How many.
        requests_per_s: Mean rate.
    """
    kinds: tuple[_Draw, ...] = (gamma, sessions, long_context, agentic)
    return kinds[int(rng.integers(len(kinds)))](rng, requests=requests, requests_per_s=requests_per_s)


def mooncake_first_half(
    rng: np.random.Generator, *, requests: int = 256, requests_per_s: float = 10.0, prompt_cap: int = 20480
) -> Workload:
    """Draw a window of the first half of Mooncake's conversation trace, squeezed to a rate; needs ``SCHEDRL_DATA``.

    Args:
        rng: Source of randomness.
        requests: How many, at most the 6015 of the half.
        requests_per_s: Mean rate.
        prompt_cap: Longer prompts are cut.

    Raises:
        ConfigError: a value outside its range.
        InstanceError: no data.
    """
    half = _mooncake_half(data_file("mooncake-first-half", data_folder("mooncake-first-half", MOONCAKE), MOONCAKE))
    require(requests=(requests, 1, half.requests))
    first = int(rng.integers(half.requests - requests, endpoint=True))
    taken = clipped(window(half, first=first, count=requests), prompt_cap)
    # A batch that arrives at once has no rate.
    return rescaled(taken, requests_per_s) if np.isfinite(taken.requests_per_s) else taken


@cache
def _mooncake_half(path: Path) -> Workload:
    return split_halves(read_workload(path, "mooncake"))[0]


def fleet_of(
    rng: np.random.Generator, name: str, *, model: str | None = None, cache_tokens: int | None = None
) -> tuple[ServingInstance, ...]:
    """Return the fleet of an option: one of ``fleets.toml``, ``random``, ``random-N``, ``varied``, ``varied-N``.

    Random fleets have N instances, or 2 to 16; ``varied`` ones have types of other speeds than any that exists.

    Raises:
        ConfigError: a model that does not fit.
        UnknownNameError: no such fleet or model.
    """
    kind, _, count = name.partition("-")
    if name in load_fleets() or kind not in ("random", "varied"):
        return named_fleet(name, model=model, cache_tokens=-1 if cache_tokens is None else cache_tokens)
    if count and not (count.isascii() and count.isdecimal()):
        raise unknown_name("fleet", name, fleet_names())
    instances = int(count) if count else None
    return random_fleet(
        rng, instances=instances, model=model or DEFAULT_MODEL, cache_tokens=cache_tokens, varied=kind == "varied"
    )


def load_of(workload: Workload, serving: tuple[ServingInstance, ...]) -> float:
    """Return the relative load: the rate of a workload over the estimate of what its fleet sustains."""
    return workload.requests_per_s / capacity_of(workload, serving)


def capacity_of(workload: Workload, serving: tuple[ServingInstance, ...]) -> float:
    """Return the rate of such requests that a fleet is estimated to sustain if its caches suffice."""
    prompt = float(workload.prompt_tokens.mean())
    return capacity_requests_per_s(
        serving,
        prompt_tokens=prompt,
        cached_tokens=prompt * prefix_hit_share(workload),
        output_tokens=float(workload.output_tokens.mean()),
    )


def routed(
    draw: _Draw,
    rng: np.random.Generator,
    *,
    sizes: Mapping[str, Any],
    fleet: str = "heterogeneous",
    model: str | None = None,
    rate: float | None = None,
    load: float | None = None,
    cache_tokens: int | None = None,
) -> tuple[Workload, tuple[ServingInstance, ...]]:
    """Draw a fleet, and a workload at a rate or at a load relative to what the fleet sustains.

    Args:
        draw: Draws the workload; takes ``requests_per_s``.
        rng: Source of randomness.
        sizes: Other options of ``draw``.
        fleet: As in ``fleet_of``.
        model: Language model; None for the fleet's own.
        rate: Requests per second.
        load: Relative load; None without a rate draws 0.5 to 1.2.
        cache_tokens: As in ``ServingInstance``; None for the fleet's own.

    Raises:
        ConfigError: both rate and load, or one that is not positive.
    """
    if rate is not None and load is not None:
        raise ConfigError("option load: given beside rate, expected either")
    for name, value in (("rate", rate), ("load", load)):
        if value is not None and not 0 < value < np.inf:
            raise ConfigError(f"option {name}: {value}, expected a positive number")
    serving = fleet_of(rng, fleet, model=model, cache_tokens=cache_tokens)
    if rate is None:
        load = float(rng.uniform(*_LOADS)) if load is None else load
        # The same draws at another rate have about the same lengths, which decide what the fleet sustains.
        seed = int(rng.integers(2**63))
        pilot = draw(np.random.default_rng(seed), **sizes)
        rate = load * capacity_of(pilot, serving)
        return draw(np.random.default_rng(seed), requests_per_s=rate, **sizes), serving
    return draw(rng, requests_per_s=rate, **sizes), serving


def _generator(name: str, draw: _Draw) -> Callable[..., RoutingInstance]:
    """Return the generator of instances whose options are those of ``draw`` and those of fleet, load and objectives."""

    def generate(
        rng: np.random.Generator,
        *,
        fleet: str = "heterogeneous",
        model: str | None = None,
        rate: float | None = None,
        load: float | None = None,
        cache_tokens: int | None = None,
        ttft_slo_s: float = 5.0,
        tpot_slo_s: float = np.inf,
        signal_refresh_s: float = 0.0,
        preference: tuple[float, float, float] = (1.0, 0.0, 0.0),
        **sizes: Any,
    ) -> RoutingInstance:
        title = sizes.pop("name", None)
        if unknown := sorted(set(sizes) - options):
            raise unknown_name(f"option of {name}", unknown[0], options)
        workload, serving = routed(
            draw, rng, sizes=sizes, fleet=fleet, model=model, rate=rate, load=load, cache_tokens=cache_tokens
        )
        return route(
            workload,
            serving,
            title or f"{name}-{workload.requests}x{len(serving)}",
            ttft_slo_s=ttft_slo_s,
            tpot_slo_s=tpot_slo_s,
            signal_refresh_s=signal_refresh_s,
            preference=preference,
        )

    own = [item for key, item in inspect.signature(draw).parameters.items() if key not in ("rng", "requests_per_s")]
    options = {item.name for item in own}
    common = [item for item in inspect.signature(generate).parameters.values() if item.kind is item.KEYWORD_ONLY]
    title = inspect.Parameter("name", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="str | None")
    first = inspect.Parameter("rng", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=np.random.Generator)
    hints = {**typing.get_type_hints(generate), **typing.get_type_hints(draw), "name": str | None}
    shown = wraps(draw)(generate)
    shown.__signature__ = inspect.Signature([first, *own, *common, title])  # type: ignore[attr-defined]
    shown.__annotations__ = {item: hints[item] for item in ("rng", *options, *(c.name for c in common), "name")}
    shown.__name__ = shown.__qualname__ = name
    shown.__doc__ = (inspect.getdoc(draw) or "").partition("\n")[0]
    return shown


GENERATORS: Mapping[str, Callable[..., RoutingInstance]] = MappingProxyType(
    {
        name: _generator(name, draw)
        for name, draw in (
            ("poisson", poisson),
            ("gamma", gamma),
            ("sessions", sessions),
            ("long-context", long_context),
            ("agentic", agentic),
            ("mixed", mixed),
            ("mooncake-first-half", mooncake_first_half),
        )
    }
)
"""generators by name; options are those of the function but ``requests_per_s``, and of ``routed`` and ``route``"""
