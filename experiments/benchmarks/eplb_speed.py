"""How fast the planners of expert placement are, next to a plain transcription of EPLB, and how well they balance.

58 layers of 256 experts to 288 slots on 32 devices in 4 nodes, 8 groups: DeepSeek-V3. The transcription follows the
published description with lists and loops over items, as the original does; both run in this process and are measured
in the thread's own time, so that a busy machine hardly matters. Then 94 layers of 128 experts on 8 devices without
replicas, against the bound.

Run by hand: ``python -m schedrl.experiments.benchmarks.eplb_speed``, which writes ``eplb_speed.json`` beside this file.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from schedrl.arrays import F32, F64, I32
from schedrl.baselines.moe.packing import balanced_placement
from schedrl.devices.cluster import uniform_cluster
from schedrl.envs.moe.bounds import load_bound
from schedrl.envs.moe.eplb import rebalance_experts
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.model import MoEModel

__all__ = ["benchmark_metrics", "main", "measure", "plain_eplb"]

_LAYERS, _EXPERTS, _SLOTS, _DEVICES, _NODES, _GROUPS = 58, 256, 288, 32, 4, 8
_REPEATS = 21
_PLAIN_REPEATS = 3
_POLICIES = {"hierarchical": (_GROUPS, _NODES, _DEVICES), "global": (1, 1, _DEVICES)}


def benchmark_metrics() -> dict[str, float]:
    """Return ``eplb_hierarchical_ms`` and ``eplb_global_ms``: median milliseconds of one core, all 58 layers."""
    loads = _deepseek_loads()
    return {
        f"eplb_{policy}_ms": _median_ms(partial(rebalance_experts, loads, _SLOTS, *sizes), _REPEATS)
        for policy, sizes in _POLICIES.items()
    }


def plain_eplb(weight: npt.ArrayLike, slots: int, groups: int, nodes: int, devices: int) -> I32:
    """Return EPLB's expert of each slot (L, P), one step of the published description after the other."""
    loads = np.asarray(weight, dtype=np.float32)
    if groups % nodes:
        groups, nodes = 1, 1
    size = loads.shape[1] // groups
    placement = np.empty((len(loads), slots), dtype=np.int32)
    for layer, row in enumerate(loads):
        node_groups = _plain_pack(row.reshape(groups, size).cumsum(axis=1, dtype=np.float32)[:, -1], nodes)
        for node, members in enumerate(node_groups):
            held = [g * size + k for g in members for k in range(size)]
            experts, replicas = list(held), dict.fromkeys(held, 1)
            while len(held) < slots // nodes:
                shares = [float(row[e] / np.float32(replicas[e])) for e in experts]
                hottest = experts[shares.index(max(shares))]
                held.append(hottest)
                replicas[hottest] += 1
            share = np.array([row[e] / np.float32(replicas[e]) for e in held], dtype=np.float32)
            packs = _plain_pack(share, devices // nodes)
            placement[layer, node * slots // nodes : (node + 1) * slots // nodes] = [
                held[p] for pack in packs for p in pack
            ]
    return placement


def _plain_pack(weight: F32, packs: int) -> list[list[int]]:
    """Return the items of each bin: equally many, the heaviest first into the lightest bin with room."""
    capacity = len(weight) // packs
    if capacity == 1:
        return [[i] for i in range(packs)]
    bins: list[list[int]] = [[] for _ in range(packs)]
    totals = [np.float32(0.0)] * packs
    for i in np.argsort(-weight, kind="stable"):
        lightest = min((k for k in range(packs) if len(bins[k]) < capacity), key=lambda k: totals[k])
        bins[lightest].append(int(i))
        totals[lightest] = totals[lightest] + weight[i]
    return bins


def measure() -> dict[str, float]:
    """Return milliseconds, ratios to the transcription, balances (sum of means per sum of maxima) and bound gaps."""
    loads, figures = _deepseek_loads(), benchmark_metrics()
    for policy, sizes in _POLICIES.items():
        figures[f"plain_{policy}_ms"] = _median_ms(partial(plain_eplb, loads, _SLOTS, *sizes), _PLAIN_REPEATS)
        figures[f"ratio_{policy}"] = figures[f"plain_{policy}_ms"] / figures[f"eplb_{policy}_ms"]
        ours, _, _ = rebalance_experts(loads, _SLOTS, *sizes)
        plain = plain_eplb(loads, _SLOTS, *sizes)
        figures[f"balance_{policy}"] = _balance(loads, ours)
        figures[f"plain_balance_{policy}"] = _balance(loads, plain)
        figures[f"equal_slots_{policy}"] = float((ours == plain).mean())
    instance = _instance(loads, _DEVICES, _SLOTS)
    for name, swaps in (("lpt", 0), ("lpt_swap", -1)):
        plan = partial(balanced_placement, instance, loads, swaps=swaps)
        figures[f"{name}_ms"] = _median_ms(plan, _REPEATS)
        figures[f"{name}_balance"] = _balance(loads, plan())
    return figures | no_replicas()


def no_replicas() -> dict[str, float]:
    """Return time and worst ratio to the bound of lpt-swap: 94 layers of 128 experts, lognormal, on 8 devices."""
    loads = np.random.default_rng(0).lognormal(0.0, 1.0, size=(94, 128))
    instance = _instance(loads, 8, 128)
    figures = {"no_replicas_s": _median_ms(lambda: balanced_placement(instance, loads), _REPEATS) / 1e3}
    bound = load_bound(loads, 128, 8)
    for name, swaps in (("lpt", 0), ("lpt_swap", -1)):
        largest = _device_loads(loads, balanced_placement(instance, loads, swaps=swaps), 8).max(axis=1)
        figures[f"no_replicas_{name}_mean_ratio"] = float((largest / bound).mean())
        figures[f"no_replicas_{name}_worst_ratio"] = float((largest / bound).max())
    return figures


def _deepseek_loads() -> F64:
    return np.random.default_rng(0).lognormal(0.0, 1.0, size=(_LAYERS, _EXPERTS))


def _instance(loads: F64, devices: int, slots: int) -> ExpertPlacementInstance:
    """Return an instance with these layers and experts and so small experts that any device holds them."""
    layers, experts = loads.shape
    return ExpertPlacementInstance(
        name="speed",
        model=MoEModel(name="speed", layers=layers, experts=experts, top_k=8, hidden=128, intermediate=128),
        cluster=uniform_cluster("h100-sxm", nodes=devices // 8, per_node=8),
        slots=np.full(devices, slots // devices, dtype=np.int32),
        counts=np.round(1000 * loads)[None].astype(np.int64),
        planned=1,
    )


def _device_loads(loads: F64, placement: I32, devices: int) -> F64:
    """Return (L, D) loads of devices with equally many slots."""
    rows = np.arange(len(loads))[:, None]
    replicas = np.zeros(loads.shape, dtype=np.int64)
    np.add.at(replicas, (rows, placement), 1)
    share = (loads / replicas)[rows, placement]
    held: F64 = share.reshape(len(loads), devices, -1).sum(axis=2)
    return held


def _balance(loads: F64, placement: I32) -> float:
    held = _device_loads(loads, placement, _DEVICES)
    return float(held.mean(axis=1).sum() / held.max(axis=1).sum())


def _median_ms(call: Callable[[], object], repeats: int) -> float:
    """Return the median milliseconds of the thread's time, after a call that compiles."""
    call()
    taken = []
    for _ in range(repeats):
        started = time.thread_time()
        call()
        taken.append(time.thread_time() - started)
    return 1e3 * float(np.median(taken))


def main() -> None:
    """Measure, print, and write the figures beside this file."""
    text = json.dumps({name: round(value, 6) for name, value in measure().items()}, indent=2)
    Path(__file__).with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
