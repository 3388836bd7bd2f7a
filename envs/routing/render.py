"""Pictures of routing: requests on instances, queues and memory over time, latencies, cost, and goodput."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from schedrl.arrays import F64, I32, I64
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.solution import RoutingPlan, arrivals, objectives
from schedrl.envs.routing.stays import DECODE, Stays, mean_over_bins, stays_of
from schedrl.errors import ConfigError
from schedrl.plotting.axes import nice_ticks, number
from schedrl.plotting.distribution import distribution_chart
from schedrl.plotting.gantt import Arrow, GanttChart, Mark, save_gantt
from schedrl.plotting.heatmap import Heatmap, HeatmapChart, save_heatmap
from schedrl.plotting.lines import Line, LineChart, save_lines
from schedrl.plotting.panels import PanelChart, save_panels

__all__ = [
    "cost_chart",
    "cost_latency",
    "goodput_chart",
    "goodput_curves",
    "kv_chart",
    "kv_heatmap",
    "latency_distributions",
    "latency_panels",
    "queue_chart",
    "queue_heatmap",
    "timeline",
    "timeline_chart",
]

# With more than these, single requests cannot be told apart; the first ones show how a router works.
_MOST_REQUESTS, _MOST_LANES = 320, 72
_COLUMNS = 120
_KINDS = ("waiting", "prefill", "decode")


def timeline(instance: RoutingInstance, plan: RoutingPlan, path: Path) -> None:
    """Write the first requests on their instances as ``.png`` (needs matplotlib), ``.svg`` or ``.html``.

    Raises:
        ConfigError: another suffix.
    """
    save_gantt(timeline_chart(instance, plan), path)


def timeline_chart(instance: RoutingInstance, plan: RoutingPlan) -> GanttChart:
    """Return the chart of the first requests: as many lanes per instance as requests that it has at once.

    Prompts count as computed in the seconds before the first token that they take alone (``stays``); arrows are
    requests that are handed over or moved.
    """
    pieces = stays_of(instance, plan)
    order = np.argsort(plan.dispatch_s[plan.instance >= 0], kind="stable")
    served: I64 = np.flatnonzero(plan.instance >= 0)[order].astype(np.int64)
    count = min(len(served), _MOST_REQUESTS)
    lane, lanes, shown = _lanes(instance, pieces, served[:count])
    while len(lanes) > max(_MOST_LANES, len(instance.fleet)) and count > 1:
        count = max(count * 3 // 4, 1)
        lane, lanes, shown = _lanes(instance, pieces, served[:count])
    begin = float(instance.arrival_s[0])
    values = objectives(instance, plan)
    first = f", first {count} of {instance.requests} requests" if count < instance.requests else ""
    end = float(pieces.end[shown].max()) - begin if len(shown) else 0.0
    return GanttChart(
        title=f"{instance.name}: penalty {number(round(values['penalty'], 4))}, "
        f"{100 * values['attainment']:.1f} % within objectives{first}",
        lanes=tuple(lanes),
        groups=_KINDS,
        lane=lane,
        start=pieces.start[shown] - begin,
        length=(pieces.end - pieces.start)[shown],
        group=pieces.kind[shown].astype(np.int32),
        label=tuple(f"{request}" for request in pieces.request[shown].tolist()),
        marks=(Mark(time=end, label=f"{number(end)} s"),),
        arrows=tuple(_arrows(pieces, shown, begin)),
        time_label="seconds since the first arrival",
        legend=True,
    )


def queue_heatmap(instance: RoutingInstance, plan: RoutingPlan, path: Path) -> None:
    """Write how many requests are without their first token at every instance over time, as ``timeline`` does.

    Raises:
        ConfigError: another suffix.
    """
    save_heatmap(queue_chart(instance, plan), path)


def queue_chart(instance: RoutingInstance, plan: RoutingPlan) -> HeatmapChart:
    """Return instance x time of the mean number of requests sent that have no token yet."""
    pieces = stays_of(instance, plan)
    early = pieces.kind != DECODE
    counted = pieces._replace(first_tokens=early.astype(np.float64), last_tokens=early.astype(np.float64))
    return _over_time(instance, counted, "requests before their first token", "requests", np.ones(len(instance.fleet)))


def kv_heatmap(instance: RoutingInstance, plan: RoutingPlan, path: Path) -> None:
    """Write the share of memory that requests use at every instance over time, as ``timeline`` does.

    Raises:
        ConfigError: another suffix.
    """
    save_heatmap(kv_chart(instance, plan), path)


def kv_chart(instance: RoutingInstance, plan: RoutingPlan) -> HeatmapChart:
    """Return instance x time of the tokens of requests under way, as a share of what fits.

    Prefixes kept for later requests are left out, and one that several requests share counts for each.
    """
    rooms = np.array([serving.kv_tokens for serving in instance.fleet], dtype=np.float64)
    chart = _over_time(instance, stays_of(instance, plan), "memory in use", "share of tokens that fit", rooms)
    # A request that gives up its memory to be computed again is drawn as if it kept it.
    panel = Heatmap(title="", values=np.minimum(chart.panels[0].values, 1.0))
    return replace(chart, panels=(panel,))


def latency_distributions(instance: RoutingInstance, plans: Mapping[str, RoutingPlan], path: Path) -> None:
    """Write the distributions of latencies under several schedulers, as ``timeline`` does.

    Raises:
        ConfigError: another suffix, or no plan.
    """
    save_panels(latency_panels(instance, plans), path)


def latency_panels(instance: RoutingInstance, plans: Mapping[str, RoutingPlan]) -> PanelChart:
    """Return distributions of time to first token and time per output token, of the requests that were served.

    Raises:
        ConfigError: no plan.
    """
    if not plans:
        raise ConfigError(f"instance {instance.name}: no plan to draw")
    first, token = {}, {}
    for name, plan in plans.items():
        served = plan.instance >= 0
        longer = served & (instance.output_tokens > 1)
        first[name] = (plan.first_token_s - arrivals(instance, plan))[served]
        rest = (plan.finish_s - plan.first_token_s)[longer]
        token[name] = 1e3 * rest / (instance.output_tokens[longer] - 1)
    panels = [
        distribution_chart(samples, x_label=label, y_label="share of requests", title=title)
        for samples, label, title in (
            ({name: values for name, values in first.items() if len(values)}, "seconds", "time to first token"),
            ({name: values for name, values in token.items() if len(values)}, "milliseconds", "time per output token"),
        )
        if samples
    ]
    return PanelChart(title=f"{instance.name}: latencies", panels=tuple(panels or [_nothing("no request was served")]))


def cost_latency(instance: RoutingInstance, plans: Mapping[str, RoutingPlan], path: Path) -> None:
    """Write cost against latency of several schedulers, as ``timeline`` does.

    Raises:
        ConfigError: another suffix, or no plan.
    """
    save_lines(cost_chart(instance, plans), path)


def cost_chart(instance: RoutingInstance, plans: Mapping[str, RoutingPlan]) -> LineChart:
    """Return a cross per scheduler at its cost and mean latency, and the steps of those that no other beats in both.

    Raises:
        ConfigError: no plan.
    """
    if not plans:
        raise ConfigError(f"instance {instance.name}: no plan to draw")
    found = {name: objectives(instance, plan) for name, plan in plans.items()}
    points = {name: (values["cost_usd"], values["latency_mean_s"]) for name, values in found.items()}
    table = np.array(list(points.values()))
    low, span = table.min(axis=0), np.maximum(np.ptp(table, axis=0), 1e-3 * np.maximum(table.max(axis=0), 1e-9))
    across, up = 0.012 * span[0], 0.03 * span[1]
    best: list[tuple[float, float]] = []
    for cost, latency in sorted(points.values()):
        if not best or latency < best[-1][1]:
            best.append((cost, latency))
    edge = float(table[:, 0].max()) + 0.04 * float(span[0])
    front = np.array([*best, (edge, best[-1][1])])
    lines = [Line(label="none better in both", x=np.repeat(front[:, 0], 2)[1:], y=np.repeat(front[:, 1], 2)[:-1])]
    for name, (cost, latency) in points.items():
        x = cost + across * np.array([-1.0, 1.0, 0.0, -1.0, 1.0])
        y = latency + up * np.array([-1.0, 1.0, 0.0, 1.0, -1.0])
        lines.append(Line(label=name, x=x, y=y))
    bottom = max(float(low[1]) - 0.1 * float(span[1]), 0.0)
    return LineChart(
        title=f"{instance.name}: cost and latency",
        x_label="cost of the time in which instances compute, USD",
        y_label="mean latency, s",
        lines=tuple(lines),
        y_range=(bottom, float(table[:, 1].max()) + 0.1 * float(span[1])),
    )


def goodput_curves(rates: F64, attainment: Mapping[str, F64], path: Path, *, goal: float = 0.9) -> None:
    """Write how the share of requests within their objectives falls with the rate, as ``timeline`` does.

    Raises:
        ConfigError: another suffix, or what ``goodput_chart`` refuses.
    """
    save_lines(goodput_chart(rates, attainment, goal=goal), path)


def goodput_chart(rates: F64, attainment: Mapping[str, F64], *, goal: float = 0.9) -> LineChart:
    """Return a curve per scheduler and the goal; where a curve crosses it is the scheduler's goodput.

    Args:
        rates: (N,) rising requests per second.
        attainment: (N,) share of requests within their objectives, by scheduler.
        goal: share that counts as good.

    Raises:
        ConfigError: no scheduler, no rate, or another number of shares than of rates.
    """
    x = np.asarray(rates, dtype=np.float64)
    lines = [Line(label=name, x=x, y=np.asarray(shares, dtype=np.float64)) for name, shares in attainment.items()]
    if lines and len(x):
        lines.append(Line(label=f"goal {goal:g}", x=x[[0, -1]], y=np.full(2, goal)))
    return LineChart(
        title="Goodput",
        x_label="requests per second",
        y_label="share within objectives",
        lines=tuple(lines),
        y_range=(0.0, 1.0),
    )


def _nothing(title: str) -> LineChart:
    return LineChart(title=title, x_label="", y_label="", lines=(Line(label="none", x=np.zeros(1), y=np.zeros(1)),))


def _lanes(instance: RoutingInstance, pieces: Stays, requests: I64) -> tuple[I32, list[str], I32]:
    """Return the lane of each piece shown, the names of all lanes, and the pieces shown."""
    shown = np.flatnonzero(np.isin(pieces.request, requests))
    lane = np.zeros(len(shown), dtype=np.int32)
    names: list[str] = []
    for i, serving in enumerate(instance.fleet):
        own = [k for k in range(len(shown)) if pieces.where[shown[k]] == i]
        own.sort(key=lambda k: pieces.start[shown[k]])
        free: list[float] = []  # when each lane of this instance is free again
        # A request keeps its lane as long as it stays; the ends of its stays are known from its last piece there.
        at: dict[int, int] = {}
        last = {int(pieces.request[shown[k]]): float(pieces.end[shown[k]]) for k in own}
        for k in own:
            r, start = int(pieces.request[shown[k]]), float(pieces.start[shown[k]])
            if r not in at:
                place = next((place for place, until in enumerate(free) if until <= start + 1e-12), len(free))
                free[place : place + 1] = [last[r]]
                at[r] = place
            lane[k] = len(names) + at[r]
        names += [serving.name, *[""] * (len(free) - 1)]
    return lane, names, shown.astype(np.int32)


def _arrows(pieces: Stays, shown: I32, begin: float) -> list[Arrow]:
    """Return an arrow for each request that goes on at another instance."""
    found = []
    for k in range(1, len(shown)):
        old, new = shown[k - 1], shown[k]
        if pieces.request[old] == pieces.request[new] and pieces.where[old] != pieces.where[new]:
            end, start = float(pieces.end[old]) - begin, float(pieces.start[new]) - begin
            found.append(Arrow(source=k - 1, target=k, start=end, end=start))
    return found


def _over_time(instance: RoutingInstance, pieces: Stays, title: str, unit: str, rooms: F64) -> HeatmapChart:
    """Return instance x time of the sum of pieces, per room of the instance."""
    begin = float(instance.arrival_s[0])
    end = max(float(pieces.end.max(initial=begin)), begin + 1e-6)
    # A round width, so that column numbers can be read as times.
    width = nice_ticks(0.0, end - begin, _COLUMNS)[1]
    columns = int(np.ceil((end - begin) / width - 1e-9))
    edges = np.asarray(begin + width * np.arange(columns + 1), dtype=np.float64)
    values = np.zeros((len(instance.fleet), columns))
    for i in range(len(instance.fleet)):
        own = pieces.where == i
        values[i] = mean_over_bins(
            pieces.start[own], pieces.end[own], pieces.first_tokens[own], pieces.last_tokens[own], edges
        )
    return HeatmapChart(
        title=f"{instance.name}: {title}",
        panels=(Heatmap(title="", values=values / rooms[:, None]),),
        x_label=f"time since the first arrival, in steps of {number(width)} s",
        y_label="instance",
        value_label=unit,
        rows=tuple(serving.name for serving in instance.fleet),
    )
