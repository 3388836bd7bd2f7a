"""The run of a stream whose tasks queue by the absolute deadline of their jobs, as a chain of events.

A task is queued when it is ready, where it is expected to end first, and can be moved until it starts. An idle device
runs, of the tasks whose inputs are there, the one of the earliest deadline. Under contention transfers are booked
when a task is queued; a task that moves later leaves the booking behind and books anew.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.solution import DagSchedule
from schedrl.envs.socdag.tables import transfer

__all__ = ["ANY", "CLOUD", "EDGE", "NEVER", "Stream"]

ANY, EDGE, CLOUD = range(3)
"""tiers that a job may be confined to: none, the cheap device types, the others"""
NEVER = math.inf
Key = tuple[float, int, float, int]
"""what queues are ordered by: absolute deadline of the job, job, minus the upward rank, task"""


@dataclass(slots=True)
class _Device:
    """One processing element: the running task and the queue by deadline."""

    queue: list[Key] = field(default_factory=list)  # keys, see Stream.key
    running: int = -1


class Stream:
    """A run of an instance: what has happened up to ``now``, and what waits.

    Args:
        instance: the instance.
        admit: called when a job with a deadline has entered; may drop or confine jobs.
        stealing: whether idle devices of the edge take tasks from other queues.
        edge_usd_per_h: dearest device type of the edge, by default the cheapest.
    """

    def __init__(
        self,
        instance: SocDagInstance,
        *,
        admit: Callable[[Stream, int], None] | None = None,
        stealing: bool = False,
        edge_usd_per_h: float | None = None,
    ) -> None:
        self.instance, self.now, self.admit, self.stealing = instance, 0.0, admit, stealing
        flat, tables = instance.flat, instance.tables
        assert instance.deadline is not None and instance.utility is not None
        self.deadline, self.utility = instance.deadline.tolist(), instance.utility.tolist()
        self.job, self.duration = flat.job.tolist(), flat.duration.tolist()
        self.supported = [np.flatnonzero(np.isfinite(row)).tolist() for row in flat.duration]
        self.inputs: list[list[tuple[int, int, float]]] = [[] for _ in self.job]  # (edge, source, bytes)
        self.outputs: list[list[int]] = [[] for _ in self.job]
        for e, ((source, target), size) in enumerate(zip(flat.edge.tolist(), flat.edge_bytes.tolist(), strict=True)):
            self.inputs[target].append((e, source, size))
            self.outputs[source].append(target)
        row = np.arange(instance.tasks) + (tables.graph_offset[instance.job_graph] - instance.job_offset[:-1])[flat.job]
        self.rank, self.tail = tables.upward_rank[row].tolist(), tables.tail[row].tolist()
        place = np.empty(instance.tasks, dtype=np.int64)
        place[flat.order] = np.arange(instance.tasks)
        # By upward rank, which tasks of no time share with their successors.
        self.order = [
            sorted(range(*span), key=lambda t: (-self.rank[t], place[t]))
            for span in zip(instance.job_offset[:-1].tolist(), instance.job_offset[1:].tolist(), strict=True)
        ]
        self.tier_of = _tiers(instance, edge_usd_per_h)
        self.devices = [_Device() for _ in range(instance.devices)]
        self.missing = [len(edges) for edges in self.inputs]
        self.device, self.start = [-1] * instance.tasks, [NEVER] * instance.tasks
        self.end, self.arrival = [NEVER] * instance.tasks, [0.0] * instance.tasks
        self.transfer = [0.0] * len(flat.edge)
        self.link_free: dict[tuple[int, int], float] = {}
        self.entry: list[float] = []
        self.left = [len(tasks) for tasks in self.order]
        self.inside: set[int] = set()
        self.dropped: set[int] = set()
        self.tier: dict[int, int] = {}
        self.ready: list[Key] = []
        self.decisions = 0

    def key(self, task: int) -> Key:
        """Return what queues are ordered by."""
        job = self.job[task]
        return self.entry[job] + self.deadline[job], job, -self.rank[task], task

    def run(self) -> DagSchedule:
        """Play all events and return what happened."""
        while len(self.entry) < self.instance.jobs or self.inside:
            self._settle()
            self.now = self._next_event()
        dropped = np.isin(self.instance.flat.job, sorted(self.dropped))
        return DagSchedule(
            device=np.where(dropped, -1, np.array(self.device)).astype(np.int32),
            start=np.where(dropped, 0.0, np.array(self.start)),
            entry=np.array(self.entry),
            transfer=np.array(self.transfer) if self.instance.communication == "contention" else None,
        )

    def _settle(self) -> None:
        """Let everything happen whose time has come."""
        again = True
        while again:
            again = any([self._finish(device) for device in self.devices])
            while self._next_entry() <= self.now:
                self._enter(len(self.entry))
                again = True
            while self.ready:
                self._place(self.ready.pop(0)[3])
            for d, device in enumerate(self.devices):
                again |= self._start_next(d)
                if self.stealing and self._idle(device) and self.tier_of[d] == EDGE:
                    again |= self._steal(d)

    def _finish(self, device: _Device) -> bool:
        task = device.running
        if task < 0 or self.end[task] > self.now:
            return False
        device.running = -1
        job = self.job[task]
        self.left[job] -= 1
        if self.left[job] == 0:
            self.inside.discard(job)
        for target in self.outputs[task]:
            self.missing[target] -= 1
            if self.missing[target] == 0:
                insort(self.ready, self.key(target))
        return True

    def _next_entry(self) -> float:
        job, release, cap = len(self.entry), self.instance.release_time, self.instance.admission_cap
        if job == self.instance.jobs or (cap and len(self.inside) >= cap):
            return NEVER
        if cap and job:
            return max(self.now, self.entry[job - 1] + float(release[job] - release[job - 1]))
        return float(release[job])

    def _next_event(self) -> float:
        times = [self._next_entry()]
        for device in self.devices:
            if device.running >= 0:
                times.append(self.end[device.running])
            else:
                times += [self.arrival[key[3]] for key in device.queue]
        return min(times)

    def _enter(self, job: int) -> None:
        self.entry.append(self.now)
        self.inside.add(job)
        self.tier[job] = ANY
        if self.admit and math.isfinite(self.deadline[job]):
            self.admit(self, job)
        if job in self.inside:
            for task in self.order[job]:
                if self.missing[task] == 0:
                    insort(self.ready, self.key(task))

    def _place(self, task: int) -> None:
        """Queue a ready task where it is expected to end first."""
        devices = self.allowed(task, self.tier[self.job[task]])
        self._queue(task, min(devices, key=lambda d: (self.expected_end(task, d), d)))

    def _queue(self, task: int, d: int) -> None:
        self.device[task], self.arrival[task] = d, self.data_ready(task, d, book=True)
        insort(self.devices[d].queue, self.key(task))
        self.decisions += 1

    def allowed(self, task: int, tier: int) -> list[int]:
        """Return the devices that support a task, only those of its job's tier if there are any."""
        devices = self.supported[task]
        return devices if tier == ANY else [d for d in devices if self.tier_of[d] == tier] or devices

    def data_ready(self, task: int, d: int, *, book: bool) -> float:
        """Return when the inputs of a ready task are at a device; ``book`` takes the links under contention."""
        links, unit, whole = self.instance.links, self.instance.device_unit, self.instance.whole_units
        free = self.link_free if book else dict(self.link_free)
        ready = self.entry[self.job[task]]
        for e, source, size in self.inputs[task]:
            begin, origin = self.end[source], self.device[source]
            cost = transfer(links, size, origin, d, whole)
            if self.instance.communication == "contention" and cost > 0.0:
                link = int(unit[origin]), int(unit[d])
                begin = max(begin, self.now, free.get(link, 0.0))
                free[link] = begin + cost
            if book:
                self.transfer[e] = begin
            ready = max(ready, begin + cost)
        return float(ready)

    def free(self, device: _Device) -> float:
        """Return when the running task is expected to end, now if it is overdue."""
        task = device.running
        if task < 0:
            return self.now
        return max(self.now, self.start[task] + float(self.duration[task][self.device[task]]))

    def expected_end(self, task: int, d: int) -> float:
        """Return when a task is expected to end on a device, behind what has an earlier deadline there."""
        own = self.key(task)
        begin = self.free(self.devices[d])
        for key in self.devices[d].queue:
            if key < own:
                begin = max(begin, self.arrival[key[3]]) + self.duration[key[3]][d]
        queued = own in self.devices[d].queue
        ready = self.arrival[task] if queued else self.data_ready(task, d, book=False)
        return float(max(begin, ready) + self.duration[task][d])

    def _start_next(self, d: int) -> bool:
        """Start, on an idle device, the task of the earliest deadline among those whose inputs are there."""
        device = self.devices[d]
        if device.running >= 0:
            return False
        for position, (_, _, _, task) in enumerate(device.queue):
            if self.arrival[task] <= self.now:
                del device.queue[position]
                device.running, self.start[task] = task, self.now
                # The only look at a true duration; rules see the end when it has come.
                self.end[task] = self.now + float(self.instance.true_duration[task, d])
                return True
        return False

    @staticmethod
    def _idle(device: _Device) -> bool:
        return device.running < 0 and not device.queue

    def _steal(self, d: int) -> bool:
        """Move the queued task that gains most utility per time on an idle device to it, if it is on time there.

        Utility is taken to fall evenly over the time that a job has, so ending sooner by x gains the share of x in it.
        """
        best, chosen = (0.0, 0.0), -1
        for task in (key[3] for other in self.devices for key in other.queue):
            job, taken = self.job[task], self.duration[task][d]
            if d not in self.allowed(task, self.tier[job]):
                continue
            end = self.expected_end(task, d)
            gain = self.expected_end(task, self.device[task]) - end
            if gain > 0.0 and end + self.tail[task][d] <= self.entry[job] + self.deadline[job]:
                per_time = gain / max(taken, 1e-12)
                value = self.utility[job] / max(self.deadline[job], 1e-12) * per_time, per_time
                if value > best:
                    best, chosen = value, task
        if chosen < 0:
            return False
        self.devices[self.device[chosen]].queue.remove(self.key(chosen))
        self._queue(chosen, d)
        return self._start_next(d)

    def withdraw(self, job: int) -> list[int]:
        """Take the unstarted tasks of a job out of all queues and return those that were ready."""
        taken = []
        for queue in (self.ready, *(device.queue for device in self.devices)):
            own = [key for key in queue if key[1] == job]
            for key in own:
                queue.remove(key)
                self.device[key[3]] = -1
            taken += [key[3] for key in own]
        return taken

    def drop(self, job: int) -> None:
        """Give up a job of which nothing has started."""
        self.withdraw(job)
        self.inside.discard(job)
        self.dropped.add(job)

    def confine(self, job: int, tier: int) -> None:
        """Let what has not started of a job run in one tier only."""
        self.tier[job] = tier
        for task in self.withdraw(job):
            insort(self.ready, self.key(task))


def _tiers(instance: SocDagInstance, edge_usd_per_h: float | None) -> list[int]:
    price = [kind.price_usd_per_h or 0.0 for kind in instance.platform.devices]
    limit = min(price) if edge_usd_per_h is None else edge_usd_per_h
    return [EDGE if price[kind] <= limit else CLOUD for kind in instance.device_type]
