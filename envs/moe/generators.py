"""Instance generators by name: calibrated log-normal loads that drift and change domain, and arbitrary small ones.

An expert's log load is ``sigma * z + sigma_group * y``: z normal per layer, expert and domain, correlated between the
domains; y normal per layer and group. A window multiplies loads by ``exp(drift * n)``, n an AR(1) process per layer and
expert. Tokens choose distinct experts, hence no expert gets more than all tokens. Constants: ``profiles``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from types import MappingProxyType
from typing import Any

import numpy as np

from schedrl.arrays import F64, I32, I64
from schedrl.devices import Cluster, uniform_cluster
from schedrl.envs.moe.affinity import transition_matrices
from schedrl.envs.moe.instance import ExpertPlacementInstance, trivial_placement
from schedrl.envs.moe.model import MoEModel, get_model
from schedrl.envs.moe.profiles import Profile, get_profile, load_profiles
from schedrl.envs.moe.timing import AllToAll, Deduplication, LayerTiming, Residence
from schedrl.errors import ConfigError

__all__ = ["GENERATORS", "arbitrary", "draw_counts", "draw_shares", "placement"]

_DEVICES = ("a100-sxm-80gb", "h100-sxm", "h200-sxm", "b200-sxm", "l40s", "h20", "h800-sxm")
# What a profile gives where the caller gives nothing.
_SHOWN = ("nodes", "per_node", "device", "redundant", "tokens", "drift", "affinity")
_DEDUPLICATE: tuple[Deduplication, ...] = ("none", "device", "node")


def placement(
    rng: np.random.Generator,
    *,
    profile: str = "deepseek-r1-mt",
    layers: int | None = 4,
    windows: int = 16,
    history: int = 4,
    switch_every: int = 0,
    domains: int = 3,
    nodes: int | None = None,
    per_node: int | None = None,
    device: str | None = None,
    redundant: int | None = None,
    tokens: int | None = None,
    iterations: int = 100,
    initial: bool = True,
    drift: float | None = None,
    affinity: float | None = None,
    residence: Residence = "home",
    name: str | None = None,
) -> ExpertPlacementInstance:
    """Draw loads of a profile on a cluster of equal devices with equal slots; None stands for the profile's value.

    Args:
        rng: Source of randomness.
        profile: Name of the load profile.
        layers: Layers with experts, at most the model's; None or 0 for all of them.
        windows: Scored windows, at least 1.
        history: Windows known before the first plan, at least 1.
        switch_every: Windows from one change of domain to the next; the first comes after 1 to ``switch_every`` scored
            windows. 0: one domain.
        domains: Domains among which a change draws, never the present one; at least 2 if they change.
        nodes: Nodes of the cluster.
        per_node: Devices per node.
        device: Name in the catalogue of devices.
        redundant: Slots per layer beyond one for each expert; all slots must divide among the devices.
        tokens: Tokens per forward pass.
        iterations: Forward passes per window.
        initial: Whether a placement is in force at the start: experts in order, then the first ones again.
        drift: Standard deviation of a window's deviation in log load, at least 0.
        affinity: Kappa of the transitions between layers, 0 to below 1; 0: the instance has no transitions.
        residence: Whether tokens return home after every layer or stay on their path, which needs transitions.
        name: Name of the instance.

    Raises:
        ConfigError: a value outside its range.
        UnknownNameError: no such profile or device.
    """
    constants = get_profile(profile)
    constants = replace(
        constants,
        nodes=constants.nodes if nodes is None else nodes,
        per_node=constants.per_node if per_node is None else per_node,
        device=device or constants.device,
        redundant=constants.redundant if redundant is None else redundant,
        tokens=constants.tokens if tokens is None else tokens,
        drift=constants.drift if drift is None else drift,
        affinity=constants.affinity if affinity is None else affinity,
    )
    _require(windows=(windows, 1), history=(history, 1), iterations=(iterations, 1), switch_every=(switch_every, 0))
    _require(domains=(domains, 2 if switch_every else 1), tokens=(constants.tokens, 1), drift=(constants.drift, 0))
    model = _layers_of(get_model(constants.model), layers)
    cluster = uniform_cluster(constants.device, nodes=constants.nodes, per_node=constants.per_node)
    slots = _equal_slots(model, cluster, constants.redundant)
    sequence = _domain_sequence(rng, history, windows, switch_every, domains)
    shares = draw_shares(rng, constants, model, domains=int(sequence.max()) + 1)
    counts = draw_counts(rng, constants, model, shares[sequence], iterations=iterations)
    transitions = None
    if constants.affinity > 0 or residence == "path":
        transitions = transition_matrices(rng, shares.mean(axis=0), affinity=constants.affinity)
    return ExpertPlacementInstance(
        name=name or f"{profile}-{model.layers}x{model.experts}",
        model=model,
        cluster=cluster,
        slots=slots,
        counts=counts,
        planned=history,
        iterations=iterations,
        timing=LayerTiming(residence=residence),
        transitions=transitions,
        initial=trivial_placement(model.layers, model.experts, int(slots.sum())) if initial else None,
    )


def draw_shares(rng: np.random.Generator, profile: Profile, model: MoEModel, *, domains: int = 1) -> F64:
    """Draw the long-run share of the picks of every domain, layer and expert, (domains, L, E).

    Shares sum to 1 over the experts; none exceeds 1 / top_k, that of an expert which every token picks.
    """
    layers, experts = model.layers, model.experts
    common = rng.standard_normal((1, layers, experts))
    own = rng.standard_normal((domains, layers, experts))
    z = np.sqrt(profile.domain_correlation) * common + np.sqrt(1 - profile.domain_correlation) * own
    outlier = rng.random((layers, 1)) < profile.outlier_share
    log_load = np.where(outlier, profile.outlier_sigma, profile.sigma) * z
    y = rng.standard_normal((layers, model.groups))
    log_load += profile.sigma_group * np.repeat(y, experts // model.groups, axis=1)
    return _normalised(log_load, model.top_k)


def draw_counts(
    rng: np.random.Generator, profile: Profile, model: MoEModel, shares: F64, *, iterations: int = 1
) -> I64:
    """Draw the counts (W, L, E) of windows whose long-run shares are ``shares`` (W, L, E).

    Every window and layer has ``tokens * top_k * iterations`` picks, and no expert more than ``tokens * iterations``.
    """
    noise = np.empty_like(shares)
    state = rng.standard_normal(shares.shape[1:])
    fresh = np.sqrt(1 - profile.persistence**2)
    for window in noise:
        window[...] = state
        state = profile.persistence * state + fresh * rng.standard_normal(state.shape)
    p = _normalised(np.log(np.maximum(shares, 1e-300)) + profile.drift * noise, model.top_k)
    most = profile.tokens * iterations
    counts: I64 = rng.multinomial(most * model.top_k, p)
    while (excess := np.maximum(counts - most, 0).sum(axis=2)).any():
        # An expert that all tokens picked hands what it drew beyond them to those with room.
        counts = np.minimum(counts, most)
        room = np.where(counts < most, p, 0.0)
        counts += rng.multinomial(excess, room / room.sum(axis=2, keepdims=True))
    return counts


def _normalised(log_load: F64, top_k: int) -> F64:
    """Return shares that sum to 1 over the last axis, the largest cut to 1 / top_k and the others scaled up."""
    p: F64 = np.exp(log_load - log_load.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    full = p > 1 / top_k
    while full.any():
        free = np.where(full, 0.0, p)
        scale = (1 - full.sum(axis=-1, keepdims=True) / top_k) / free.sum(axis=-1, keepdims=True)
        p = np.where(full, 1 / top_k, free * scale)
        now = p > (1 + 1e-12) / top_k
        if not now.any():
            break
        full |= now
    p /= p.sum(axis=-1, keepdims=True)
    return p


def _domain_sequence(rng: np.random.Generator, history: int, windows: int, every: int, domains: int) -> I64:
    """Return the domain of each window, (history + windows,), numbered from 0."""
    if not every:
        return np.zeros(history + windows, dtype=np.int64)
    first = int(rng.integers(1, every, endpoint=True))
    switches = 1 + max(windows - 1 - first, -every) // every
    # A step of 1 to domains - 1 around the circle reaches each other domain alike.
    steps = np.concatenate([[0], rng.integers(1, domains, size=max(switches, 0))])
    order = np.cumsum(steps) % domains
    block = np.maximum((np.arange(history + windows) - history - first) // every + 1, 0)
    sequence: I64 = np.unique(order[block], return_inverse=True)[1].astype(np.int64)
    return sequence


def _layers_of(model: MoEModel, layers: int | None) -> MoEModel:
    if not layers:
        return model
    if not 1 <= layers <= model.layers:
        raise ConfigError(f"option layers: {layers}, expected 1 to {model.layers} for {model.name}, or 0 for all")
    return replace(model, layers=layers)


def _equal_slots(model: MoEModel, cluster: Cluster, redundant: int) -> I32:
    _require(redundant=(redundant, 0))
    total, devices = model.experts + redundant, cluster.devices
    if total % devices:
        raise ConfigError(f"option redundant: {redundant}, {total} slots do not divide among {devices} devices")
    return np.full(devices, total // devices, dtype=np.int32)


def _require(**options: tuple[float, float]) -> None:
    for name, (value, least) in options.items():
        if not value >= least or not np.isfinite(value):
            raise ConfigError(f"option {name}: {value}, expected at least {least}")


def arbitrary(
    rng: np.random.Generator, *, experts: int | None = None, devices: int | None = None, name: str = "arbitrary"
) -> ExpertPlacementInstance:
    """Draw a tiny instance with anything that is allowed: unlike nodes, unequal slots, no load, extreme load.

    Args:
        rng: Source of randomness.
        experts: Experts per layer, at least 1; None draws 4 to 12.
        devices: Devices, at least 1; None draws 2 to 6.
        name: Name of the instance.

    Raises:
        ConfigError: a value outside its range.
    """
    experts = int(rng.integers(4, 13)) if experts is None else experts
    devices = int(rng.integers(2, 7)) if devices is None else devices
    _require(experts=(experts, 1), devices=(devices, 1))
    layers, windows = int(rng.integers(1, 4)), int(rng.integers(1, 6))
    model = MoEModel(
        name="arbitrary",
        layers=layers,
        experts=experts,
        top_k=int(rng.integers(1, min(experts, 4), endpoint=True)),
        hidden=int(rng.integers(1, 65)) * 64,
        intermediate=int(rng.integers(1, 33)) * 64,
        groups=int(rng.choice([g for g in range(1, experts + 1) if experts % g == 0])),
        bytes_per_weight=float(rng.choice([0.5, 1.0, 2.0])),
    )
    slots = _unequal_slots(rng, experts, devices)
    return ExpertPlacementInstance(
        name=name,
        model=model,
        cluster=_unlike_nodes(rng, devices),
        slots=slots,
        counts=_wild_counts(rng, (windows, layers, experts)),
        planned=int(rng.integers(1, windows, endpoint=True)),
        iterations=int(rng.integers(1, 101)),
        timing=_any_timing(rng),
        transitions=rng.dirichlet(np.ones(experts), size=(layers - 1, experts))
        if layers > 1 and rng.random() < 0.5
        else None,
        initial=_any_placement(rng, layers, experts, int(slots.sum())) if rng.random() < 0.5 else None,
    )


def _unequal_slots(rng: np.random.Generator, experts: int, devices: int) -> I32:
    spare = max(experts - devices, 0) + int(rng.integers(0, experts, endpoint=True))
    return (1 + rng.multinomial(spare, rng.dirichlet(np.ones(devices)))).astype(np.int32)


def _unlike_nodes(rng: np.random.Generator, devices: int) -> Cluster:
    nodes, left = [], devices
    while left:
        count = int(rng.integers(1, left, endpoint=True))
        latency_s = float(rng.uniform(0, 50e-6))
        nodes.append(uniform_cluster(str(rng.choice(_DEVICES)), nodes=1, per_node=count, latency_s=latency_s).nodes[0])
        left -= count
    return Cluster(nodes=tuple(nodes))


def _wild_counts(rng: np.random.Generator, shape: tuple[int, int, int]) -> I64:
    counts = np.exp(rng.choice([0.0, 1.0, 4.0]) * rng.standard_normal(shape)) * 10.0 ** rng.integers(0, 6)
    counts *= rng.random(shape) >= rng.choice([0.0, 0.3, 0.9])
    # Windows without any load in a layer.
    counts *= rng.random((*shape[:2], 1)) >= rng.choice([0.0, 0.1])
    integers: I64 = np.minimum(counts, 1e9).astype(np.int64)
    return integers


def _any_timing(rng: np.random.Generator) -> LayerTiming:
    dispatch, combine = (
        AllToAll(
            bytes_per_value=float(rng.uniform(0.5, 4.0)),
            intra_latency_s=float(rng.uniform(0, 50e-6)),
            inter_latency_s=float(rng.uniform(0, 50e-6)),
            intra_efficiency=float(rng.uniform(0.1, 1.0)),
            inter_efficiency=float(rng.uniform(0.1, 1.0)),
        )
        for _ in range(2)
    )
    return LayerTiming(
        dispatch=dispatch,
        combine=combine,
        expert_overhead_s=float(rng.choice([0.0, 3e-6])),
        migration_sync_s=float(rng.choice([0.0, 1e-4])),
        deduplicate=_DEDUPLICATE[int(rng.integers(len(_DEDUPLICATE)))],
    )


def _any_placement(rng: np.random.Generator, layers: int, experts: int, slots: int) -> I32:
    full = np.concatenate(
        [np.tile(np.arange(experts), (layers, 1)), rng.integers(0, experts, size=(layers, slots - experts))], axis=1
    )
    return rng.permuted(full, axis=1).astype(np.int32)


def _of_profile(name: str) -> Callable[..., ExpertPlacementInstance]:
    """Return ``placement`` of one profile, whose signature shows the profile's own values as defaults."""

    @wraps(placement)
    def draw(rng: np.random.Generator, **options: Any) -> ExpertPlacementInstance:
        return placement(rng, profile=name, **options)

    constants = get_profile(name)
    signature = inspect.signature(placement)
    shown = [
        parameter.replace(default=getattr(constants, key)) if parameter.default is None and key in _SHOWN else parameter
        for key, parameter in signature.parameters.items()
        if key != "profile"
    ]
    draw.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
    draw.__annotations__ = {key: hint for key, hint in placement.__annotations__.items() if key != "profile"}
    draw.__name__ = draw.__qualname__ = name
    draw.__doc__ = f"Draw drifting loads with the statistics of {constants.source.partition(':')[0]}."
    return draw


GENERATORS: Mapping[str, Callable[..., ExpertPlacementInstance]] = MappingProxyType(
    {name: _of_profile(name) for name in load_profiles()} | {"arbitrary": arbitrary}
)
