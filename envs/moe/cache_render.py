"""Picture of a cache's schedule: what the device computes and what the link to the host brings, side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from schedrl.envs.moe.cache_instance import ExpertCacheInstance
from schedrl.envs.moe.cache_solution import CacheSchedule, cache_objectives, check_cache
from schedrl.errors import SolutionError
from schedrl.plotting.axes import number
from schedrl.plotting.gantt import GanttChart, Mark, save_gantt

__all__ = ["cache_chart", "cache_timeline"]

# With more bars than this, single loads cannot be told apart; the first ones show how the rule works.
_MOST_REQUESTS = 400


def cache_timeline(instance: ExpertCacheInstance, schedule: CacheSchedule, path: Path) -> None:
    """Write the chart as ``.png`` (needs matplotlib), ``.svg`` or interactive ``.html``, by the suffix.

    Raises:
        SolutionError: the schedule is not valid for the instance.
        ConfigError: another suffix.
    """
    save_gantt(cache_chart(instance, schedule), path)


def cache_chart(instance: ExpertCacheInstance, schedule: CacheSchedule) -> GanttChart:
    """Return the chart of the first requests: computation by layer, loads by the layer of the expert.

    Raises:
        SolutionError: the schedule is not valid for the instance.
    """
    if violations := check_cache(instance, schedule):
        raise SolutionError(f"instance {instance.name}: {violations[0]}")
    values = cache_objectives(instance, schedule)
    shown = min(instance.steps, _MOST_REQUESTS)
    compute_s = instance.compute_s[instance.layer]
    end = float((schedule.compute_start_s + compute_s)[shown - 1])
    loads = np.flatnonzero(schedule.load_start_s < end)
    layers = len(instance.compute_s)
    load_layer = schedule.load_expert[loads] // instance.experts
    rest = f", first {shown} of {instance.steps} requests" if shown < instance.steps else ""
    return GanttChart(
        title=f"{instance.name}: decode time {number(values['decode_time'])} s, "
        f"hit rate {100 * values['hit_rate']:.1f} %{rest}",
        lanes=("compute", "host link"),
        groups=tuple(f"layer {layer}" for layer in range(layers)),
        lane=np.repeat(np.array([0, 1], dtype=np.int32), [shown, len(loads)]),
        start=np.concatenate([schedule.compute_start_s[:shown], schedule.load_start_s[loads]]),
        length=np.concatenate([compute_s[:shown], np.full(len(loads), instance.load_s)]),
        group=np.concatenate([instance.layer[:shown], load_layer]).astype(np.int32),
        label=(
            *(f"token {token}" for token in instance.token[:shown].tolist()),
            *(f"expert {expert % instance.experts}" for expert in schedule.load_expert[loads].tolist()),
        ),
        marks=(Mark(time=end, label=f"{number(end)} s"),),
        time_label="time in seconds",
    )
