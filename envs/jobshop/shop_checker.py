"""Whether a schedule obeys a shop of any variant, from the definitions and without the simulator."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

import numpy as np

from schedrl.envs.jobshop.shop import ShopInstance
from schedrl.envs.jobshop.shop_moves import moves_in_a_cycle
from schedrl.envs.jobshop.shop_schedule import (
    ShopSchedule,
    chosen_modes,
    completion_times,
    departure_times,
    machine_sequences,
)
from schedrl.envs.jobshop.solution import MAX_LISTED

__all__ = ["check_shop"]


def check_shop(instance: ShopInstance, schedule: ShopSchedule) -> list[str]:
    """Return every way in which a schedule breaks the instance, in words; an empty list means valid.

    Written from the definition: every operation has an existing mode and a start; no start is negative, before its
    job's release, within an outage of its machine or before its predecessor in the job completes; an operation
    occupies its machine from its start to its departure, the end excluded, no two at once, and between those that
    follow each other passes the setup time. An operation without duration may stand at either edge of another on its
    machine or share its time with others of the kind, but not lie strictly inside one. Without swaps, the jobs that
    move at one moment must also be able to move one by one, each to a machine that is empty by then.

    An operation that overlaps several earlier ones is listed once, with the one that holds the machine longest. Cycles
    are sought where nothing overlaps. At most ``MAX_LISTED`` violations are spelled out, the rest are counted.
    """
    if sizes := [
        f"{len(values)} {what} for {instance.operations} operations"
        for what, values in (("modes", schedule.mode), ("start times", schedule.start_time))
        if len(values) != instance.operations
    ]:
        return sizes
    if modes := list(_missing_modes(instance, schedule)):
        return _shortened(modes)
    return _Findings(instance, schedule).words()


class _Findings:
    """What is wrong with a schedule whose machines and completions are known."""

    def __init__(self, instance: ShopInstance, schedule: ShopSchedule) -> None:
        self.instance = instance
        self.machine = instance.machine[chosen_modes(instance, schedule)]
        self.start = schedule.start_time
        self.completion = completion_times(instance, schedule)
        self.departure = departure_times(instance, schedule)
        self.sequences = machine_sequences(instance, schedule)

    def words(self) -> list[str]:
        overlaps = list(self._overlaps())
        cycles = self._cycles() if self.instance.blocking == "no-swap" and not overlaps else iter(())
        return _shortened(
            [*self._early_starts(), *self._down(), *self._before_predecessors(), *overlaps, *self._setups(), *cycles]
        )

    def _early_starts(self) -> Iterator[str]:
        first, release = self.instance.job_offset[:-1], self.instance.release
        for i in np.flatnonzero(self.start < 0).tolist():
            yield f"{self._name(i)} starts at {self.start[i]}, before time 0"
        for j in np.flatnonzero((self.start[first] >= 0) & (self.start[first] < release)).tolist():
            yield f"{self._name(first[j])} starts at {self.start[first[j]]}, before its job's release {release[j]}"

    def _down(self) -> Iterator[str]:
        offset = self.instance.outage_offset
        for m in np.flatnonzero(np.diff(offset)).tolist():
            sequence, outages = self.sequences[m], slice(offset[m], offset[m + 1])
            start, end = self.instance.outage_start[outages], self.instance.outage_end[outages]
            last = np.searchsorted(start, self.start[sequence], side="right") - 1
            inside = (last >= 0) & (self.start[sequence] < end[last])
            for i, k in zip(sequence[inside].tolist(), last[inside].tolist(), strict=True):
                yield f"{self._name(i)} starts at {self.start[i]}, in the outage [{start[k]}, {end[k]}) of its machine"

    def _before_predecessors(self) -> Iterator[str]:
        job = self.instance.job
        for i in (np.flatnonzero((job[1:] == job[:-1]) & (self.start[1:] < self.completion[:-1])) + 1).tolist():
            yield (
                f"{self._name(i)} starts at {self.start[i]}, before its predecessor {self._name(i - 1)} "
                f"completes at {self.completion[i - 1]}"
            )

    def _overlaps(self) -> Iterator[str]:
        for m, sequence in enumerate(self.sequences):
            until = self.departure[sequence]
            latest = np.maximum.accumulate(until)
            # Nothing of a sequence up to here departs later than the last that set the maximum.
            holder = sequence[np.maximum.accumulate(np.where(until == latest, np.arange(len(sequence)), 0))]
            for k in (np.flatnonzero(latest[:-1] > self.start[sequence[1:]]) + 1).tolist():
                yield f"machine {m}: {self._span(sequence[k])} overlaps {self._span(holder[k - 1])}"

    def _setups(self) -> Iterator[str]:
        family = self.instance.setup_family
        for m in np.flatnonzero(self.instance.setup.any(axis=(1, 2))).tolist():
            before, after = self.sequences[m][:-1], self.sequences[m][1:]
            gap = self.start[after] - self.departure[before]
            setup = self.instance.setup[m, family[before], family[after]]
            for k in np.flatnonzero((gap >= 0) & (gap < setup)).tolist():
                yield (
                    f"machine {m}: {self._name(after[k])} starts {gap[k]} after {self._name(before[k])} departs at "
                    f"{self.departure[before[k]]}, setup takes {setup[k]}"
                )

    def _cycles(self) -> Iterator[str]:
        for time, jobs in moves_in_a_cycle(self.instance, self.machine, self.start, self.departure):
            yield f"at {time} jobs {', '.join(map(str, jobs))} move to each other's machines, which no-swap forbids"

    def _name(self, index: int) -> str:
        job = int(self.instance.job[index])
        return f"job {job} operation {index - self.instance.job_offset[job]} (machine {self.machine[index]})"

    def _span(self, index: int) -> str:
        return f"{self._name(index)} [{self.start[index]}, {self.departure[index]})"


def _missing_modes(instance: ShopInstance, schedule: ShopSchedule) -> Iterator[str]:
    choices = np.diff(instance.mode_offset)
    for i in np.flatnonzero((schedule.mode < 0) | (schedule.mode >= choices)).tolist():
        j = int(instance.job[i])
        operation = f"job {j} operation {i - instance.job_offset[j]}"
        yield f"{operation} runs in mode {schedule.mode[i]}, expected 0 to {choices[i] - 1}"


def _shortened(words: list[str]) -> list[str]:
    rest = len(words) - MAX_LISTED
    return list(chain(islice(words, MAX_LISTED), [f"... and {rest} more"] if rest > 0 else []))
