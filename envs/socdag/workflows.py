"""Agentic workflows on mixed tiers of GPUs and CPUs: language models, tools and vector look-ups.

A job is a planner that asks agents in parallel, each of which looks something up, thinks, calls a tool and answers,
and a synthesis of the answers that may start another round. The types of tasks are those of arXiv 2507.19635, which
plans agentic workloads on mixed hardware: prefill, bound by arithmetic; decoding, bound by memory bandwidth; tool
calls; look-ups. Their times come from the roofline of ``schedrl.devices`` with batches of one, so that a task has
its device to itself.
"""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from typing import Literal, NamedTuple

import numpy as np

from schedrl.devices import Device, Link, Platform, PowerState, get_device
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.task_graph import TaskGraph
from schedrl.errors import ConfigError

__all__ = ["LARGE", "SMALL", "LanguageModel", "agentic", "tiers"]


class LanguageModel(NamedTuple):
    """What the roofline needs to know about a dense language model with 2-byte weights."""

    name: str
    parameters: float
    layers: int
    kv_bytes: int  # per token

    @property
    def weight_bytes(self) -> float:
        """Bytes of the weights."""
        return 2.0 * self.parameters

    def fits(self, device: Device) -> bool:
        """Whether the weights leave a tenth of the device's memory free."""
        return device.memory_bytes is not None and self.weight_bytes <= 0.9 * device.memory_bytes

    def prefill_s(self, device: Device, tokens: int) -> float:
        """Return the seconds in which all tokens of a prompt pass the model at once; attention is left out."""
        return self._pass_s(device, tokens, self.weight_bytes + tokens * self.kv_bytes)

    def decode_s(self, device: Device, context: int, tokens: int) -> float:
        """Return the seconds in which ``tokens`` are written one by one after a context."""
        return tokens * self._pass_s(device, 1, self.weight_bytes + (context + tokens / 2.0) * self.kv_bytes)

    def _pass_s(self, device: Device, tokens: int, moved_bytes: float) -> float:
        # Layer by layer, because the catalogue's overhead is per layer; its fits join both times with the 2-norm.
        flops = 2.0 * self.parameters * tokens
        return self.layers * device.operation_s(flops / self.layers, moved_bytes / self.layers, norm=2.0)


# Published sizes of Llama 3.1 8B (8 key-value heads of 128) and Qwen2.5 32B (likewise).
SMALL = LanguageModel("llama-3.1-8b", 8.03e9, 32, 131072)
LARGE = LanguageModel("qwen2.5-32b", 32.5e9, 64, 262144)

# Assumptions, for want of a source that could be read: on-demand prices that the catalogue lacks, a CPU server of
# 32 cores, and a data-centre network of 100 Gbit/s between all devices.
_ASSUMED_USD_PER_H = {"h100-sxm": 7.5, "l4": 0.7}
_CPU = Device(
    name="cpu-32",
    flops_per_s={"bf16": 4e12},
    memory_bytes=256e9,
    memory_bandwidth_bytes_per_s=200e9,
    mfu=0.5,
    mbu=0.7,
    power_states=(PowerState(name="full", power_w=250.0),),
    price_usd_per_h=1.5,
    idle_power_w=80.0,
)
_NETWORK = Link(latency_s=50e-6, bandwidth_bytes_per_s=12.5e9)
_COUNTS = {"h100-sxm": 1, "a100-sxm-80gb": 1, "l4": 2, _CPU.name: 2}

_TEXT_BYTES = 4  # per token
_INDEX_BYTES = 4e9  # a million vectors of 1000 single-precision numbers, scanned as a whole
_SLA = 3.0  # deadline in multiples of the job's shortest possible latency

# Medians and spreads of the log-normal draws: tokens, and seconds of a tool.
_PROMPT = (1500.0, 0.5)
_REPLY = (200.0, 0.5)
_TOOL_S = (2.0, 0.7)


@cache
def tiers() -> Platform:
    """Return one H100, one A100, two L4 and two CPU servers.

    The CPU server, the prices of H100 and L4, and the network are assumptions, stated in this module's source; all
    else comes from the catalogue of devices.
    """
    devices = []
    for name in _COUNTS:
        device = _CPU if name == _CPU.name else get_device(name)
        if name in _ASSUMED_USD_PER_H:
            device = dataclasses.replace(device, price_usd_per_h=_ASSUMED_USD_PER_H[name])
        devices.append(device)
    links = {(source, target): _NETWORK for source in _COUNTS for target in _COUNTS}
    return Platform(devices=tuple(devices), counts=tuple(_COUNTS.values()), links=links)


def agentic(
    rng: np.random.Generator,
    *,
    jobs: int = 6,
    agents: int = 3,
    rounds: int = 2,
    scale: float = 20.0,
    noise_sigma: float = 0.2,
    preference: Literal["latency", "random"] = "latency",
    name: str | None = None,
) -> SocDagInstance:
    """Draw agentic workflows that arrive in a Poisson stream at the mixed tiers of ``tiers``.

    A job has ``2 + rounds * (6 * agents + 2)`` tasks: prefill and decoding of the plan, then per round and agent a
    look-up, prefill, decoding, a tool call, and prefill and decoding again, and per round prefill and decoding of
    the synthesis. Planner and synthesis use the large model, agents the small one. Edges carry the text, and from
    prefill to decoding the keys and values. Each job is due after three times its shortest possible latency.

    Args:
        rng: Source of randomness.
        jobs: Number of jobs, at least 1; the first arrives at 0.
        agents: Agents that work in parallel, at least 1.
        rounds: Rounds of agents and synthesis, at least 1.
        scale: Mean gap between jobs in seconds, above 0.
        noise_sigma: Standard deviation of the relative error of the expected durations.
        preference: ``random`` draws the weights of latency, energy and cost uniformly from the simplex.
        name: Name of the instance.

    Raises:
        ConfigError: a value outside its range.
    """
    for option, value in (("jobs", jobs), ("agents", agents), ("rounds", rounds)):
        if value < 1:
            raise ConfigError(f"option {option}: {value}, expected at least 1")
    if not 0.0 < scale < np.inf:
        raise ConfigError(f"option scale: {scale}, expected a positive number of seconds")
    if not 0.0 <= noise_sigma < np.inf:
        raise ConfigError(f"option noise_sigma: {noise_sigma}, expected 0 or more")
    if preference not in ("latency", "random"):
        raise ConfigError(f"option preference: {preference!r}, expected latency or random")
    gap = scale * rng.standard_exponential(jobs)
    gap[0] = 0.0
    graphs = tuple(_workflow(rng, f"workflow-{job}", agents, rounds) for job in range(jobs))
    noise = rng.standard_normal(sum(graph.tasks for graph in graphs))
    return SocDagInstance(
        name=name or f"agentic-{jobs}x{agents}x{rounds}",
        platform=tiers(),
        graphs=graphs,
        job_graph=np.arange(jobs, dtype=np.int32),
        release=np.cumsum(gap),
        deadline=np.array([_SLA * _shortest_s(graph) for graph in graphs]),
        noise_sigma=noise_sigma,
        noise=noise,
        preference=rng.dirichlet(np.ones(3)) if preference == "random" else None,
    )


class _Graph:
    """Collects the tasks and edges of one workflow."""

    def __init__(self) -> None:
        self.devices = tiers().devices
        self.names: list[str] = []
        self.seconds: list[list[float]] = []
        self.edges: list[tuple[int, int, float]] = []

    def add(self, name: str, seconds: list[float], *sources: tuple[int, float]) -> int:
        """Add a task with its seconds by device type and the (task, bytes) it needs; return its number."""
        task = len(self.names)
        self.names.append(name)
        self.seconds.append(seconds)
        self.edges += [(source, task, size) for source, size in sources]
        return task

    def call(self, name: str, model: LanguageModel, tokens: tuple[int, int, int], *sources: tuple[int, float]) -> int:
        """Add prefill and decoding; ``tokens`` are those cached before, of the prompt, and of the reply."""
        cached, prompt, reply = tokens
        usable = [model.fits(device) for device in self.devices]
        prefill = [
            model.prefill_s(device, prompt) if fits else math.inf
            for device, fits in zip(self.devices, usable, strict=True)
        ]
        decode = [
            model.decode_s(device, cached + prompt, reply) if fits else math.inf
            for device, fits in zip(self.devices, usable, strict=True)
        ]
        first = self.add(f"{name}/prefill", prefill, *sources)
        return self.add(f"{name}/decode", decode, (first, float((cached + prompt) * model.kv_bytes)))

    def build(self, name: str) -> TaskGraph:
        """Return the graph."""
        return TaskGraph(
            name=name,
            task_names=tuple(self.names),
            duration=np.array(self.seconds),
            edge=np.array([edge[:2] for edge in self.edges]),
            edge_bytes=np.array([edge[2] for edge in self.edges], dtype=np.float64),
        )


def _workflow(rng: np.random.Generator, name: str, agents: int, rounds: int) -> TaskGraph:
    graph = _Graph()
    reply = _tokens(rng, _REPLY)
    last = graph.call("plan", LARGE, (0, _tokens(rng, _PROMPT), reply))
    for number in range(rounds):
        answers = [_agent(rng, graph, f"round{number}/agent{agent}", last, reply) for agent in range(agents)]
        prompt = reply + sum(tokens for _, tokens in answers)
        reply = _tokens(rng, _REPLY)
        sources = [(task, float(_TEXT_BYTES * tokens)) for task, tokens in answers]
        last = graph.call(f"round{number}/synthesis", LARGE, (0, prompt, reply), *sources)
    return graph.build(name)


def _agent(rng: np.random.Generator, graph: _Graph, name: str, order: int, order_tokens: int) -> tuple[int, int]:
    """Add one agent's six tasks after the task with its order; return the last one and the tokens it writes."""
    order_bytes = float(_TEXT_BYTES * order_tokens)
    found, thought, result, answer = (_tokens(rng, kind) for kind in (_PROMPT, _REPLY, _PROMPT, _REPLY))
    scan = [device.operation_s(0.0, _INDEX_BYTES) for device in graph.devices]
    lookup = graph.add(f"{name}/lookup", scan, (order, order_bytes))
    prompt = order_tokens + found
    think = graph.call(f"{name}/think", SMALL, (0, prompt, thought), (lookup, float(_TEXT_BYTES * prompt)))
    tool_s = _TOOL_S[0] * math.exp(_TOOL_S[1] * rng.standard_normal())
    seconds = [tool_s if device.name == _CPU.name else math.inf for device in graph.devices]
    tool = graph.add(f"{name}/tool", seconds, (think, float(_TEXT_BYTES * thought)))
    cached = prompt + thought
    sources = ((think, float(cached * SMALL.kv_bytes)), (tool, float(_TEXT_BYTES * result)))
    return graph.call(f"{name}/answer", SMALL, (cached, result, answer), *sources), answer


def _tokens(rng: np.random.Generator, kind: tuple[float, float]) -> int:
    median, spread = kind
    return max(int(median * math.exp(spread * rng.standard_normal())), 1)


def _shortest_s(graph: TaskGraph) -> float:
    """Return the longest path, every task on its fastest device and all data free."""
    end = graph.duration.min(axis=1).copy()
    for task in graph.topological_order.tolist():
        span = slice(graph.predecessors.offset[task], graph.predecessors.offset[task + 1])
        end[task] += end[graph.predecessors.task[span]].max(initial=0.0)
    return float(end.max())
