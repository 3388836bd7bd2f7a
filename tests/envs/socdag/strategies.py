"""Random small instances for property tests: ``from strategies import instances``.

All times, sizes and speeds are dyadic fractions, so that sums of them are exact and a plain-Python reference agrees
with a kernel to the last bit unless noise is on.
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from schedrl.devices import Device, Link, Platform, PowerState
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.task_graph import TaskGraph

__all__ = ["MEMORY", "graphs", "instances", "platforms"]

MEMORY = "dram"
POINTS = (
    (),
    (PowerState(name="full", power_w=2.0),),
    (PowerState(name="slow", power_w=0.5, speed=0.5), PowerState(name="fast", power_w=3.0)),
    (PowerState(name="throttled", power_w=1.0, speed=0.5), PowerState(name="crawl", power_w=0.25, speed=0.25)),
)


@st.composite
def instances(
    draw: st.DrawFn,
    *,
    max_tasks: int = 8,
    max_devices: int = 4,
    jobs: int = 1,
    noise: bool = False,
    deadlines: bool = False,
    capacity: bool = False,
    memory: bool = False,
    contention: bool = False,
) -> SocDagInstance:
    """Draw an instance; an option that is on may show in it, one that is off never does.

    Zero costs, zero bytes, free links, unsupported types, several operating points (also ones whose fastest is below
    full speed), idle power, prices and ``whole_units`` occur in every mode. ``admission_cap`` is always 0; tests that
    need another one use ``dataclasses.replace``.

    Args:
        draw: Given by hypothesis.
        max_tasks: Most tasks of one job.
        max_devices: Most processing elements.
        jobs: Most jobs; all but the first may be released later.
        noise: Draw a noise level and a draw per task.
        deadlines: Draw deadlines, some infinite, and utilities.
        capacity: Let devices run two tasks side by side.
        memory: Let data go through a shared memory; such an instance never has contention.
        contention: Let links carry one transfer at a time.
    """
    platform = draw(platforms(max_devices=max_devices, capacity=capacity, memory=memory))
    count = draw(st.integers(1, jobs))
    templates = draw(st.lists(graphs(len(platform.devices), max_tasks=max_tasks), min_size=1, max_size=count))
    kinds = [draw(st.integers(0, len(templates) - 1)) for _ in range(count)]
    tasks = sum(templates[kind].tasks for kind in kinds)
    release = np.cumsum([0.0, *(draw(quarters(0, 40)) for _ in range(count - 1))])
    due = st.one_of(quarters(0, 200), st.just(np.inf)) if deadlines else st.just(np.inf)
    worth = quarters(0, 8) if deadlines else st.just(1.0)
    crowded = contention and platform.memory is None and draw(st.booleans())
    return SocDagInstance(
        name="random",
        platform=platform,
        graphs=tuple(templates),
        job_graph=np.array(kinds),
        release=release,
        deadline=np.array([draw(due) for _ in kinds]),
        utility=np.array([draw(worth) for _ in kinds]),
        noise_sigma=draw(st.sampled_from([0.1, 0.5])) if noise else 0.0,
        noise=np.array(draw(st.lists(quarters(-12, 12), min_size=tasks, max_size=tasks))) if noise else None,
        communication="contention" if crowded else "delay",
        whole_units=draw(st.booleans()),
    )


@st.composite
def platforms(
    draw: st.DrawFn, *, max_devices: int = 4, capacity: bool = False, memory: bool = False, max_types: int = 3
) -> Platform:
    """Draw up to ``max_devices`` processing elements of up to ``max_types`` types with a link for every pair."""
    devices: list[Device] = []
    counts: list[int] = []
    room = draw(st.integers(1, max_devices))
    while room and len(devices) < max_types:
        side_by_side = draw(st.integers(1, 2)) if capacity and room > 1 else 1
        counts.append(draw(st.integers(1, room // side_by_side)))
        room -= counts[-1] * side_by_side
        devices.append(
            Device(
                name=f"type{len(devices)}",
                power_states=draw(st.sampled_from(POINTS)),
                price_usd_per_h=draw(st.sampled_from([None, 0.5, 4.0])),
                idle_power_w=draw(st.sampled_from([0.0, 0.25])),
                capacity=side_by_side,
            )
        )
    names = [device.name for device in devices]
    shared = MEMORY if memory and draw(st.booleans()) else None
    pairs = [(p, q) for p in names for q in names]
    if shared:
        pairs = [pair for name in names for pair in ((name, shared), (shared, name))]
    link = st.builds(
        Link, latency_s=st.sampled_from([0.0, 0.0, 0.5, 3.0]), bandwidth_bytes_per_s=st.sampled_from([0.5, 1.0, 8.0])
    )
    return Platform(
        devices=tuple(devices), counts=tuple(counts), links={pair: draw(link) for pair in pairs}, memory=shared
    )


@st.composite
def graphs(draw: st.DrawFn, types: int, *, max_tasks: int = 8) -> TaskGraph:
    """Draw a graph over ``types`` device types whose task numbers are not always a topological order."""
    tasks = draw(st.integers(1, max_tasks))
    cost = st.one_of(st.integers(1, 20).map(float), quarters(0, 80))
    duration = np.array([[draw(cost) for _ in range(types)] for _ in range(tasks)])
    for row in duration:
        kept = draw(st.integers(0, types - 1))
        dropped = draw(st.sets(st.integers(0, types - 1), max_size=types - 1)) - {kept}
        row[sorted(dropped)] = np.inf
    position = draw(st.one_of(st.just(list(range(tasks))), st.permutations(range(tasks))))
    pairs = [(i, j) for j in range(tasks) for i in range(j)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=2 * tasks)) if pairs else []
    return TaskGraph(
        name="graph",
        task_names=tuple(f"t{task}" for task in range(tasks)),
        duration=duration,
        edge=np.array([(position[i], position[j]) for i, j in chosen], dtype=np.int32).reshape(-1, 2),
        edge_bytes=np.array([draw(quarters(0, 64)) for _ in chosen]),
    )


def quarters(low: int, high: int) -> st.SearchStrategy[float]:
    """Draw a multiple of 1/4 between low/4 and high/4."""
    return st.integers(low, high).map(lambda number: number / 4)


st.register_type_strategy(SocDagInstance, instances())
