"""How good a policy is on held-out generated instances, relative to a reference scheduler."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from schedrl.families import Family, Instance
from schedrl.rollout import play
from schedrl.schedulers import Policy, get_scheduler
from schedrl.training.config import ValidationConfig

__all__ = ["ValidationSuite"]


class ValidationSuite:
    """Fixed instances per set with their reference values, generated from the validation seed alone."""

    def __init__(self, family: Family, config: ValidationConfig, simulator_options: Mapping[str, Any]) -> None:
        self._family, self._options = family, dict(simulator_options)
        rng = np.random.default_rng(config.seed)
        self._sets: dict[str, list[Instance]] = {}
        for item in config.instances:
            label = f"{item.generator} " + " ".join(f"{key}={value}" for key, value in item.size.items())
            self._sets[label] = [family.generators[item.generator](rng, **item.size) for _ in range(config.count)]
        self._reference = {label: self._reference_values(config, items) for label, items in self._sets.items()}

    def _reference_values(self, config: ValidationConfig, instances: list[Instance]) -> list[float]:
        if config.reference is None:
            return [self._family.bounds(instance)[0].value for instance in instances]
        scheduler = get_scheduler(config.reference).make()
        rng = np.random.default_rng(config.seed)
        results = [scheduler.schedule(instance, time_limit_s=math.inf, rng=rng) for instance in instances]
        return [float(result.objective or 0.0) for result in results]

    def gaps(self, policy: Policy) -> dict[str, float]:
        """Return the mean gap of greedy episodes to the reference per set; negative beats it."""
        return {label: self._gap(policy, label) for label in self._sets}

    def _gap(self, policy: Policy, label: str) -> float:
        instances = self._sets[label]
        simulator = self._family.make_simulator(instances, len(instances), **self._options)
        policy.begin([self._family.static_graph(instance) for instance in instances])
        play(policy, self._family, simulator, rng=None)
        values = np.array([simulator.objective(row) for row in range(len(instances))])
        return float(np.mean(values / np.array(self._reference[label]) - 1.0))
