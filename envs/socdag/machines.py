"""Platforms for files that know one runtime per task: each device type runs every task at its own speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from schedrl.arrays import F64
from schedrl.devices import Device, Link, Platform
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.task_graph import TaskGraph
from schedrl.errors import ConfigError, InstanceError

__all__ = ["MIXED", "Machines", "identical", "related"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """Related machines: a task that took r on the recording machine takes r / speed on a device type.

    Raises:
        ConfigError: not one positive speed per device type.
    """

    platform: Platform
    speed: tuple[float, ...]  # (P,) by device type, against the machine the runtimes were recorded on

    def __post_init__(self) -> None:
        types = len(self.platform.devices)
        if len(self.speed) != types or not all(np.isfinite(speed) and speed > 0 for speed in self.speed):
            raise ConfigError(f"option speed: {self.speed}, expected a positive number for each of {types} types")

    def duration(self, runtime: F64) -> F64:
        """Return what tasks of the given runtimes (T,) take by device type (T, P)."""
        matrix: F64 = np.asarray(runtime, dtype=np.float64)[:, None] / np.array(self.speed)
        return matrix

    def runtime(self, graph: TaskGraph, form: str) -> F64:
        """Return the runtimes (T,) behind a graph's durations, to write them in a form that holds nothing else.

        Raises:
            InstanceError: the durations are not those of one runtime per task on these machines.
        """
        if graph.duration.shape[1] == len(self.speed):
            by_type = graph.duration * np.array(self.speed)
            if np.isfinite(by_type).all() and np.allclose(by_type, by_type[:, :1], rtol=1e-9, atol=0.0):
                recorded: F64 = by_type[:, int(np.argmin(np.abs(np.array(self.speed) - 1.0)))]
                return recorded
        raise InstanceError(
            f"graph {graph.name}: field duration: {form} holds one runtime per task, and these are not runtimes "
            f"divided by the speeds {self.speed}; use format json or csv"
        )

    def check_expressible(self, instance: SocDagInstance, form: str, *, one_job: bool = True) -> None:
        """Refuse an instance whose behaviour a file without platform and clock would change.

        Raises:
            InstanceError: another platform than these machines', noise, contention, an admission limit, or rounding;
                with ``one_job`` also several jobs, a release or a deadline.
        """
        assert instance.deadline is not None
        plain = {
            "job_graph": instance.jobs == 1 or not one_job,
            "release": instance.release_time[0] == 0.0 or not one_job,
            "deadline": np.isinf(instance.deadline).all() or not one_job,
            "platform": instance.platform == self.platform,
            "noise_sigma": not instance.noise_sigma,
            "communication": instance.communication == "delay",
            "admission_cap": not instance.admission_cap,
            "whole_units": not instance.whole_units,
        }
        for field, fits in plain.items():
            if not fits:
                hint = "pass the machines it is for" if field == "platform" else "use format json"
                raise InstanceError(f"{instance.name}: field {field}: {form} cannot hold it; {hint}")


def related(
    types: Mapping[str, tuple[int, float]], *, latency_s: float = 0.0, bandwidth_bytes_per_s: float = 1e9
) -> Machines:
    """Return machines from a count and a speed by name, every pair joined by a link of the same figures.

    Raises:
        ConfigError: a count, speed, latency or bandwidth outside its range.
    """
    link = Link(latency_s=latency_s, bandwidth_bytes_per_s=bandwidth_bytes_per_s)
    return Machines(
        platform=Platform(
            devices=tuple(Device(name=name) for name in types),
            counts=tuple(count for count, _ in types.values()),
            links={(source, target): link for source in types for target in types},
        ),
        speed=tuple(speed for _, speed in types.values()),
    )


def identical(count: int, *, name: str = "cpu", bandwidth_bytes_per_s: float = 1.0) -> Machines:
    """Return ``count`` machines of speed 1; by default a byte takes one second, so that bytes are a time.

    Raises:
        ConfigError: a count or bandwidth outside its range.
    """
    return related({name: (count, 1.0)}, bandwidth_bytes_per_s=bandwidth_bytes_per_s)


MIXED = related({"fast": (1, 4.0), "brisk": (1, 2.0), "medium": (2, 1.0), "slow": (4, 0.5)}, latency_s=1e-3)
"""Default for traces of one machine: eight devices of four types, of which ``medium`` is the recorded one, over
links of 1 GB/s and 1 ms. An assumption, not a measurement: pass others where you know them."""
