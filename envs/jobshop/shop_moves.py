"""Jobs that move at one and the same moment: whether they can do so one by one, without swapping machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from schedrl.arrays import I32, I64
from schedrl.envs.jobshop.shop import ShopInstance

__all__ = ["moves_in_a_cycle"]

_OUTSIDE = -1
"""where a job is before its first operation and after its last"""


def moves_in_a_cycle(
    instance: ShopInstance, machine: I32, start: I64, departure: I64
) -> Iterator[tuple[int, list[int]]]:
    """Yield each moment at which jobs cannot move one by one, and jobs that wait for each other's machines in a cycle.

    A move needs an empty machine, or the one that the job is on. Jobs that leave for good at that moment have left.

    Args:
        instance: Whose jobs move.
        machine: (N,) machine of each operation.
        start: (N,) when it enters that machine.
        departure: (N,) when it leaves it; no two operations overlap.
    """
    order = np.lexsort((np.arange(instance.operations), start))
    moments = np.split(order, np.flatnonzero(np.diff(start[order])) + 1)
    first = instance.job_offset[instance.job]
    for entering in moments:
        # A cycle takes two jobs, of which one comes from a machine.
        jobs = instance.job[entering]
        if (jobs == jobs[0]).all() or (entering == first[entering]).all():
            continue
        moment = _Moment()
        for i in entering.tolist():
            job = int(instance.job[i])
            if job not in moment.place:
                moment.place[job] = int(machine[i - 1]) if i > first[i] else _OUTSIDE
                moment.visits[job] = []
            moment.visits[job].append(int(machine[i]))
            if departure[i] > start[i]:
                moment.staying.add(job)
            elif i + 1 == instance.job_offset[job + 1]:
                moment.visits[job].append(_OUTSIDE)
        if cycle := moment.cycle():
            yield int(start[entering[0]]), cycle


class _Moment:
    """The moves of one moment. All but a job's last visit take no time; a job that stays comes last to its machine."""

    def __init__(self) -> None:
        self.place: dict[int, int] = {}
        self.visits: dict[int, list[int]] = {}
        self.staying: set[int] = set()

    def cycle(self) -> list[int]:
        """Return jobs that block each other, none if all can move.

        Where several operations without duration share a machine their order is free, and all orders are tried that
        matter; moves that bar no other are made as soon as they can be.
        """
        jobs = list(self.visits)
        states = [(0,) * len(jobs)]
        seen = set(states)
        blocked: list[int] = []
        while states:
            done = dict(zip(jobs, states.pop(), strict=True))
            options = self._advance(done)
            if all(done[job] == len(self.visits[job]) for job in jobs):
                return []
            if not options:
                blocked = blocked or self._waiting(done)
            for option in options:
                state = tuple(done[job] + (job == option) for job in jobs)
                if state not in seen:
                    seen.add(state)
                    states.append(state)
        return blocked

    def _advance(self, done: dict[int, int]) -> list[int]:
        """Make all moves that bar no other, and return the jobs that could make another kind of move."""
        holder = {self._at(job, done): job for job in done}
        passing = Counter(m for job in done for m in self._passing(job, done[job]))
        options: list[int] = []
        moved = True
        while moved:
            moved, options = False, []
            for job in done:
                free, harmless = self._reach(job, done[job], holder, passing)
                if harmless:
                    if holder.get(here := self._at(job, done)) == job:
                        del holder[here]
                    passing.subtract(self._passing(job, done[job]))
                    done[job] += harmless
                    passing.update(self._passing(job, done[job]))
                    holder[self._at(job, done)] = job
                    moved = True
                elif free:
                    options.append(job)
        return options

    def _reach(self, job: int, done: int, holder: dict[int, int], passing: Counter[int]) -> tuple[int, int]:
        """Return how many visits ahead lead over empty machines, and how far a job can go and bar no other.

        What it passes on the way is empty again. It bars nobody outside, where it stays as it was, and on a machine
        that all others who have to pass it have passed.
        """
        visits = self.visits[job]
        here = visits[done - 1] if done else self.place[job]
        harmless, passed, still = 0, Counter[int](), True
        for ahead, target in enumerate(visits[done:], start=1):
            if target not in (_OUTSIDE, here) and target in holder:
                return ahead - 1, harmless
            if job not in self.staying or done + ahead < len(visits):
                passed[target] += 1
            still = still and target == here
            if still or target == _OUTSIDE or passing[target] == passed[target]:
                harmless = ahead
        return len(visits) - done, harmless

    def _at(self, job: int, done: dict[int, int]) -> int:
        return self.visits[job][done[job] - 1] if done[job] else self.place[job]

    def _passing(self, job: int, done: int) -> list[int]:
        """Return the machines that a job has yet to visit for no time."""
        rest = self.visits[job][done:]
        return [m for m in (rest[:-1] if job in self.staying else rest) if m != _OUTSIDE]

    def _waiting(self, done: dict[int, int]) -> list[int]:
        """Return a cycle among the jobs that cannot move, each waiting for the next and the last for the first.

        One that has moved on to stay where it was closes a cycle with those that had to pass its machine meanwhile.
        """
        pending = [job for job in done if done[job] < len(self.visits[job])]
        holder = {self._at(job, done): job for job in done}
        path = [pending[0]]
        while True:
            target = self.visits[path[-1]][done[path[-1]]]
            # A machine that is empty is kept for a job that still has to pass it.
            others = (job for job in pending if job != path[-1] and target in self._passing(job, done[job]))
            following = holder[target] if target in holder else next(others, path[0])
            if following in path:
                return path[path.index(following) :]
            path.append(following)
            if following not in pending:
                return path[-2:]
