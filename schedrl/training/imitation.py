"""Warm start: teach a fresh network to decide as the schedules of a given scheduler do, before it trains by itself.

Behaviour cloning with cross-entropy; the value head learns the teacher's discounted returns from the same episodes,
so that reinforcement learning starts with both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from schedrl.arrays import F32, I32
from schedrl.errors import ConfigError
from schedrl.families import Family, Instance
from schedrl.graphs import DecisionBatch, StaticGraph
from schedrl.policies.encoding import encode_graphs
from schedrl.policies.network import Decisions, PolicyNetwork, Rows
from schedrl.schedulers import get_scheduler

__all__ = ["Demonstrations", "ImitationConfig", "Lesson", "demonstrate", "imitate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A teacher and the generated instances it solves."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  # pydantic reads it; misspelt keys are errors

    teacher: str
    """full name of a scheduler, such as ``socdag/lookahead``"""
    generator: str
    size: Mapping[str, Any]
    count: int = 100
    """instances"""
    time_limit_s: float = 1.0
    """per instance, for teachers that search"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImitationConfig:
    """What the warm start learns from, and how long."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  # pydantic reads it; misspelt keys are errors

    lessons: tuple[Lesson, ...]
    epochs: int = 10
    learning_rate: float = 1e-3
    minibatch_instances: int = 16
    value_weight: float = 0.5


class Demonstrations(NamedTuple):
    """All decisions of the teachers' episodes; row r belongs to ``graphs[graph[r]]``."""

    graphs: list[StaticGraph]
    graph: I32  # (R,)
    candidates: I32  # (R, C, k)
    candidate_features: F32  # (R, C, Fc)
    context: F32  # (R, Fg)
    counts: I32  # (R,)
    action: I32  # (R,)
    returns: F32  # (R,) discounted


def demonstrate(
    family: Family,
    lessons: Sequence[Lesson],
    simulator_options: Mapping[str, Any],
    *,
    discount: float,
    rng: np.random.Generator,
) -> Demonstrations:
    """Let the teachers solve generated instances, and record what the simulator offers on the way to their schedules.

    Raises:
        ConfigError: an unknown generator, or a teacher that found no schedule in time.
    """
    instances: list[Instance] = []
    solutions = []
    for number, lesson in enumerate(lessons):
        if lesson.generator not in family.generators:
            raise ConfigError(
                f"imitation.lessons[{number}].generator: {lesson.generator!r}, expected one of "
                f"{', '.join(family.generators)}"
            )
        teacher = get_scheduler(lesson.teacher).make()
        for _ in range(lesson.count):
            instance = family.generators[lesson.generator](rng, **lesson.size)
            result = teacher.schedule(instance, time_limit_s=lesson.time_limit_s, rng=rng)
            if result.solution is None:
                raise ConfigError(f"imitation.lessons[{number}]: {lesson.teacher} found no schedule: {instance.name}")
            instances.append(instance)
            solutions.append(result.solution)
    if not instances:
        raise ConfigError("imitation.lessons: no instances, expected at least one")
    return _record(family, instances, solutions, simulator_options, discount)


def _record(
    family: Family,
    instances: Sequence[Instance],
    solutions: Sequence[Any],
    simulator_options: Mapping[str, Any],
    discount: float,
) -> Demonstrations:
    simulator = family.make_simulator(instances, len(instances), **simulator_options)
    decision = DecisionBatch.allocate(simulator.batch, simulator.slots, family.features)
    reward, done = np.zeros(simulator.batch, dtype=np.float32), np.zeros(simulator.batch, dtype=np.bool_)
    steps: list[dict[str, np.ndarray[Any, Any]]] = []
    rewards: list[F32] = []
    while True:
        simulator.observe(decision)
        running = np.flatnonzero(decision.count)
        if not running.size:
            break
        action = np.full(simulator.batch, -1, dtype=np.int32)
        for row in running.tolist():
            action[row] = simulator.follow(row, solutions[row])
        step = {item.name: getattr(decision, item.name)[running].copy() for item in fields(DecisionBatch)}
        steps.append(step | {"graph": running.astype(np.int32), "action": action[running]})
        simulator.step(action, reward, done)
        rewards.append(reward.copy())
    following = np.zeros(simulator.batch, dtype=np.float32)
    for step, earned in zip(reversed(steps), reversed(rewards), strict=True):
        following = earned + np.float32(discount) * following
        step["returns"] = following[step["graph"]]
    columns = {name: np.concatenate([step[name] for step in steps]) for name in steps[0]}
    columns["counts"] = columns.pop("count")
    return Demonstrations(graphs=[family.static_graph(instance) for instance in instances], **columns)


def imitate(
    network: PolicyNetwork, demonstrations: Demonstrations, config: ImitationConfig, rng: np.random.Generator
) -> list[float]:
    """Train the network on the demonstrations and return the share of decisions it agrees with, per epoch."""
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    agreement = []
    for _ in range(config.epochs):
        agreed, order = 0, rng.permutation(len(demonstrations.graphs))
        for first in range(0, len(order), config.minibatch_instances):
            chosen = order[first : first + config.minibatch_instances]
            logits, values, rows = _forward(network, demonstrations, chosen)
            action = torch.from_numpy(demonstrations.action[rows]).long().to(logits.device)
            returns = torch.from_numpy(demonstrations.returns[rows]).to(logits.device)
            loss = torch.nn.functional.cross_entropy(logits, action)
            loss = loss + config.value_weight * torch.nn.functional.mse_loss(values, returns)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch ships it untyped
            torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
            optimizer.step()
            agreed += int((logits.argmax(dim=1) == action).sum())
        agreement.append(agreed / len(demonstrations.action))
    return agreement


def _forward(network: PolicyNetwork, data: Demonstrations, chosen: np.ndarray[Any, Any]) -> tuple[Tensor, Tensor, I32]:
    """Return logits (R, C), values (R,) and the rows of the chosen instances' decisions."""
    device = next(network.parameters()).device
    position = np.full(len(data.graphs), -1, dtype=np.int64)
    position[chosen] = np.arange(len(chosen))
    rows = np.flatnonzero(position[data.graph] >= 0).astype(np.int32)
    embeddings, offset = encode_graphs(network, [data.graphs[number] for number in chosen])
    graph = torch.from_numpy(position[data.graph[rows]]).to(device)
    slots = np.arange(data.candidates.shape[1])
    decision, slot = np.nonzero(slots[None, :] < data.counts[rows][:, None])
    picked = torch.from_numpy(data.candidates[rows][decision, slot]).long().to(device)
    place = torch.from_numpy(decision).to(device)
    features = torch.from_numpy(data.candidate_features[rows][decision, slot]).to(device)
    context = torch.from_numpy(data.context[rows]).to(device)
    scores, values = network.decode(
        embeddings, Rows(place, picked + offset[graph[place], None], features), Decisions(graph, context)
    )
    logits = torch.full((len(rows), len(slots)), -1e8, dtype=scores.dtype, device=device)
    logits[place, torch.from_numpy(slot).to(device)] = scores
    return logits, values, rows
