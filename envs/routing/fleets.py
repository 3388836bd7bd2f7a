"""Fleets of serving instances: from counts of catalogued devices, by name, or at random; and what a fleet can serve."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np

from schedrl.devices import serving_time
from schedrl.devices.catalogue import load_catalogue
from schedrl.devices.language_model import get_language_model
from schedrl.devices.serving import kv_capacity_tokens, serving_row
from schedrl.envs.routing.fleet import Role, ServingInstance
from schedrl.errors import ConfigError, unknown_name

__all__ = [
    "DEFAULT_MODEL",
    "TRAINING_DEVICES",
    "NamedFleet",
    "capacity_requests_per_s",
    "fleet",
    "fleet_names",
    "load_fleets",
    "named_fleet",
    "random_fleet",
]

DEFAULT_MODEL = "qwen2.5-7b"
TRAINING_DEVICES = ("h100-sxm", "a100-sxm-80gb", "l40s", "a10g", "l4")
"""types that random fleets are made of"""

_PATH = Path(__file__).with_name("fleets.toml")
_ROLES: tuple[Role, ...] = ("mixed", "prefill", "decode")
_LEAST, _MOST = 2, 16
_MOST_INSTANCES = 4096
# Caches of a random fleet: in the memory of the device, or as large as those of DualMap's evaluation.
_CACHES = (-1, 1_000_000)
_COMPUTE = (serving_time.TOKEN, serving_time.PAIR, serving_time.HEAD_TOKEN)
_MEMORY = (
    serving_time.WEIGHTS, serving_time.EXPERT_WEIGHTS, serving_time.CONTEXT, serving_time.HEAD_WEIGHTS
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedFleet:
    """An entry of ``fleets.toml``.

    Raises:
        ConfigError: no instances.
    """

    name: str
    summary: str
    mixed: Mapping[str, int] = field(default_factory=dict)
    prefill: Mapping[str, int] = field(default_factory=dict)
    decode: Mapping[str, int] = field(default_factory=dict)
    model: str = DEFAULT_MODEL
    tensor_parallel: int = 1

    def __post_init__(self) -> None:
        if not (self.mixed or self.prefill or self.decode):
            raise ConfigError(f"fleet {self.name}: empty, expected at least one serving instance")


def fleet(
    counts: Mapping[str, int],
    model: str = DEFAULT_MODEL,
    *,
    tensor_parallel: int = 1,
    role: Role = "mixed",
    cache_tokens: int = -1,
    token_budget: int = 2048,
    max_sequences: int = 256,
    power_cap_w: float = 0.0,
) -> tuple[ServingInstance, ...]:
    """Return serving instances of catalogued devices, named after device and number.

    Args:
        counts: How many instances of each type.
        model: Language model that all serve.
        tensor_parallel: Devices of each instance.
        role: What all of them do.
        cache_tokens: As in ``ServingInstance``.
        token_budget: Most tokens of an iteration.
        max_sequences: Most requests of an iteration.
        power_cap_w: Limit of each device's power, 0 for none.

    Raises:
        ConfigError: empty, a count that is no positive integer, or a model that does not fit on a device.
        UnknownNameError: no such device or model.
    """
    if not counts:
        raise ConfigError("fleet: empty, expected at least one serving instance")
    sizes = get_language_model(model)
    catalogue = load_catalogue()
    instances: list[ServingInstance] = []
    for device, count in counts.items():
        if device not in catalogue:
            raise unknown_name("device", device, catalogue)
        if type(count) is not int or not 1 <= count <= _MOST_INSTANCES:
            raise ConfigError(f"fleet: device {device}: {count!r}, expected a count of 1 to {_MOST_INSTANCES}")
        figures = catalogue[device].device
        full_w = max((state.power_w for state in figures.power_states), default=0.0)
        first = ServingInstance(
            name=device,
            device=device,
            model=model,
            coefficients=serving_row(device, sizes, tensor_parallel=tensor_parallel, power_cap_w=power_cap_w),
            kv_tokens=kv_capacity_tokens(device, sizes, tensor_parallel=tensor_parallel),
            tensor_parallel=tensor_parallel,
            role=role,
            cache_tokens=cache_tokens,
            token_budget=token_budget,
            max_sequences=max_sequences,
            price_usd_per_h=(figures.price_usd_per_h or 0.0) * tensor_parallel,
            power_w=(min(full_w, power_cap_w) if power_cap_w else full_w) * tensor_parallel,
            idle_power_w=figures.idle_power_w * tensor_parallel,
        )
        middle = "" if role == "mixed" else f"-{role}"
        instances.extend(replace(first, name=f"{device}{middle}-{number}") for number in range(count))
    return tuple(instances)


@cache
def load_fleets() -> Mapping[str, NamedFleet]:
    """Return the fleets of ``fleets.toml`` by name."""
    data = tomllib.loads(_PATH.read_text(encoding="utf-8"))
    return MappingProxyType({name: NamedFleet(name=name, **item) for name, item in data.items()})


def fleet_names() -> tuple[str, ...]:
    """Return what ``fleet`` options of generators take: names, and the kinds of random fleet."""
    return (*load_fleets(), "random", "random-N", "varied", "varied-N")


def named_fleet(name: str, *, model: str | None = None, cache_tokens: int = -1) -> tuple[ServingInstance, ...]:
    """Return a named fleet.

    Args:
        name: One of ``load_fleets``.
        model: Language model instead of the fleet's own.
        cache_tokens: As in ``ServingInstance``, for all of them.

    Raises:
        ConfigError: the model does not fit on a device.
        UnknownNameError: no such fleet or model.
    """
    fleets = load_fleets()
    if name not in fleets:
        raise unknown_name("fleet", name, fleet_names())
    found = fleets[name]
    return tuple(
        serving
        for role in _ROLES
        if getattr(found, role)
        for serving in fleet(
            getattr(found, role),
            model or found.model,
            tensor_parallel=found.tensor_parallel,
            role=role,
            cache_tokens=cache_tokens,
        )
    )


def random_fleet(
    rng: np.random.Generator,
    *,
    instances: int | None = None,
    model: str = DEFAULT_MODEL,
    cache_tokens: int | None = None,
    varied: bool = False,
) -> tuple[ServingInstance, ...]:
    """Draw a fleet of ``TRAINING_DEVICES`` on which the model fits: 1 to all of them, in any proportion.

    Args:
        rng: Source of randomness.
        instances: How many; None draws 2 to 16.
        model: Language model that all serve.
        cache_tokens: As in ``ServingInstance``; None draws -1 or 1,000,000.
        varied: Whether each type's rate of computing, bandwidth, overhead and memory change by factors of 1/2 to 2, so
            that policies learn to look at speeds rather than types.

    Raises:
        ConfigError: a count below 1, or a model that fits on none of the devices.
        UnknownNameError: no such model.
    """
    size = int(rng.integers(_LEAST, _MOST, endpoint=True)) if instances is None else instances
    if not 1 <= size <= _MOST_INSTANCES:
        raise ConfigError(f"fleet: {size!r} instances, expected 1 to {_MOST_INSTANCES}")
    types = _types_that_fit(model)
    cache_size = int(rng.choice(_CACHES)) if cache_tokens is None else cache_tokens
    kinds = int(rng.integers(1, len(types), endpoint=True))
    chosen = rng.permutation(len(types))[:kinds]
    drawn = rng.choice(chosen, size=size, p=rng.dirichlet(np.ones(kinds)))
    counts = {types[k]: int(np.count_nonzero(drawn == k)) for k in sorted(set(drawn.tolist()))}
    made = fleet(counts, model, cache_tokens=cache_size)
    if not varied:
        return made
    changed = {device: _varied(rng, next(s for s in made if s.device == device)) for device in counts}
    return tuple(replace(changed[serving.device], name=serving.name) for serving in made)


@cache
def _types_that_fit(model: str) -> tuple[str, ...]:
    sizes = get_language_model(model)
    types = []
    for device in TRAINING_DEVICES:
        try:
            kv_capacity_tokens(device, sizes)
        except ConfigError:
            continue
        types.append(device)
    if not types:
        raise ConfigError(f"fleet: language model {model} fits on none of {', '.join(TRAINING_DEVICES)}")
    return tuple(types)


def _varied(rng: np.random.Generator, serving: ServingInstance) -> ServingInstance:
    compute, memory, overhead, room = 2.0 ** rng.uniform(-1.0, 1.0, size=4)
    row = serving.coefficients.copy()
    row[list(_COMPUTE)] *= compute
    row[list(_MEMORY)] *= memory
    row[serving_time.OVERHEAD] *= overhead
    return replace(serving, coefficients=row, kv_tokens=max(int(serving.kv_tokens * room), 1))


def capacity_requests_per_s(
    serving: Sequence[ServingInstance], *, prompt_tokens: float, cached_tokens: float, output_tokens: float
) -> float:
    """Estimate the rate of requests of a mean size that a fleet sustains, were its load spread as each can bear.

    A fluid estimate: in every iteration as many requests decode as memory and token budget hold, beside the prompt
    tokens that keep pace with them; waiting, bursts and caches that overflow are left out.

    Args:
        serving: The fleet.
        prompt_tokens: Mean prompt.
        cached_tokens: Mean part of it that is found in a cache.
        output_tokens: Mean answer.
    """
    rates: dict[Role, float] = dict.fromkeys(_ROLES, 0.0)
    for one in serving:
        rates[one.role] += _instance_rate(one, prompt_tokens, cached_tokens, output_tokens)
    return rates["mixed"] + min(rates["prefill"], rates["decode"])


def _instance_rate(one: ServingInstance, prompt: float, cached: float, output: float) -> float:
    computed = max(prompt - cached, 1.0)
    context = prompt + output / 2
    # Prompt tokens of an iteration per decoding request.
    beside = {"mixed": computed / output, "prefill": math.inf, "decode": 0.0}[one.role]
    if one.role == "prefill":
        chunk, decoding = float(one.token_budget), 0.0
    else:
        decoding = min(one.max_sequences, one.kv_tokens / context, one.token_budget / (1.0 + beside))
        chunk = decoding * beside
    sequences = decoding + chunk / computed
    seconds = serving_time.plain_iteration_s(
        one.coefficients,
        max(round(decoding + chunk), 1),
        max(round(sequences), 1),
        decoding * context + chunk / computed * prompt,
        chunk * (cached + computed / 2),
    )
    return chunk / computed / seconds if one.role == "prefill" else decoding / output / seconds
