"""Rules for the total tardiness of jobs on one machine, and their augmentation by moves to the end.

All jobs are there at time 0 and have a processing time and a due date, both (J,) int64 in one unit of time; a rule
returns the order of the jobs, (J,) int64. Of equally good jobs the first that a rule comes across goes first, and the
order in which it looks through the jobs is part of its definition: published gaps are only met with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from schedrl.arrays import I64
from schedrl.errors import ConfigError, InstanceError, SolutionError
from schedrl.kernels import inner, kernel

__all__ = [
    "AUGMENTED_RULES",
    "LOOK_AHEAD",
    "RULES",
    "SingleMachineRule",
    "atc",
    "augment",
    "covert",
    "edd",
    "eddc",
    "mdd",
    "mddc",
    "psk",
    "single_machine_arrays",
    "spt",
    "total_tardiness",
]

SingleMachineRule = Callable[[I64, I64], I64]

# Vepsalainen and Morton (1987) look two processing times ahead where all jobs are known from the start.
LOOK_AHEAD = 2.0
# Sums of processing times below this are exact in the rules that compute in floating point.
_MOST = 2**52
_MDD, _MDDC, _ATC, _COVERT = range(4)


def single_machine_arrays(p: npt.ArrayLike, d: npt.ArrayLike) -> tuple[I64, I64]:
    """Return copies of processing times and due dates as int64 arrays.

    Processing times may be zero or negative, as some of the published instances have them.

    Args:
        p: (J,) processing times.
        d: (J,) due dates.

    Raises:
        InstanceError: not integers, not one-dimensional, of different lengths, empty, or too large to add up.
    """
    arrays: list[I64] = []
    for field, values in (("p", p), ("d", d)):
        array = np.asarray(values)
        if array.ndim != 1 or not len(array):
            raise InstanceError(f"field {field}: shape {array.shape}, expected one value per job, (J,) with J >= 1")
        if not np.issubdtype(array.dtype, np.integer):
            raise InstanceError(f"field {field}: dtype {array.dtype}, expected integers")
        if np.abs(array.astype(np.float64)).sum() > _MOST:
            raise InstanceError(
                f"field {field}: absolute values sum to more than {_MOST}, expected a coarser time unit"
            )
        # A copy, as kernels are compiled anew for arrays that cannot be written to.
        arrays.append(np.array(array, dtype=np.int64, order="C"))
    if len(arrays[0]) != len(arrays[1]):
        raise InstanceError(f"field d: {len(arrays[1])} values, expected {len(arrays[0])} as in p")
    return arrays[0], arrays[1]


def total_tardiness(p: npt.ArrayLike, d: npt.ArrayLike, order: npt.ArrayLike) -> int:
    """Return the sum over jobs of the time by which each ends after its due date.

    Args:
        p: (J,) processing times.
        d: (J,) due dates.
        order: (J,) the jobs from first to last; the machine never waits.

    Raises:
        InstanceError: as ``single_machine_arrays``.
        SolutionError: ``order`` is no permutation of the jobs.
    """
    p, d = single_machine_arrays(p, d)
    order = _permutation(order, len(p))
    return int(np.maximum(np.cumsum(p[order]) - d[order], 0).sum())


def edd(p: I64, d: I64) -> I64:
    """Return the jobs by earliest due date (Jackson 1955), ties by index; no order has a smaller maximum tardiness."""
    _, d = single_machine_arrays(p, d)
    return np.argsort(d, kind="stable")


def spt(p: I64, d: I64) -> I64:
    """Return the jobs by shortest processing time, ties by due date (Smith 1956); optimal if then all are late."""
    p, d = single_machine_arrays(p, d)
    return np.lexsort((d, p))


def mdd(p: I64, d: I64) -> I64:
    """Return the jobs by least modified due date max(t + p, d) at each decision (Baker and Bertrand 1982).

    Ties by index, as published gaps have it.
    """
    p, d = single_machine_arrays(p, d)
    order = np.arange(len(p))
    _dispatch(_MDD, p, d, LOOK_AHEAD, order)
    return order


def mddc(p: I64, d: I64) -> I64:
    """Return the jobs by the modified due date challenger, a rule found by program search (arXiv 2510.24013).

    As published in code, which looks through the jobs by due date; the text says by processing time.
    """
    p, d = single_machine_arrays(p, d)
    order = np.lexsort((p, d))
    _dispatch(_MDDC, p, d, LOOK_AHEAD, order)
    return order


def eddc(p: I64, d: I64) -> I64:
    """Return the jobs by the earliest due date challenger, a rule found by program search (arXiv 2510.24013).

    As published in code: jobs by processing time are sorted by due date as insertion sort does, except that no job goes
    before one that would start late. The text starts from due dates, where no job would ever move.
    """
    p, d = single_machine_arrays(p, d)
    order = np.lexsort((d, p))
    _eddc(p, d, order)
    return order


def psk(p: I64, d: I64) -> I64:
    """Return the jobs by the heuristic of Panwalkar, Smith and Koulamas (EJOR 70, 1993).

    Each pass goes from short to long jobs and takes a longer job in place of the one it holds if that is due earlier,
    until the one it holds would be late if it had to wait for the next.
    """
    p, d = single_machine_arrays(p, d)
    order = np.lexsort((d, p))
    _psk(p, d, order)
    return order


def atc(p: I64, d: I64, *, look_ahead: float = LOOK_AHEAD) -> I64:
    """Return the jobs by apparent tardiness cost (Rachamadugu and Morton 1982; Vepsalainen and Morton 1987).

    The job with the largest exp(-slack / (k p̄)) / p goes next: slack is what remains until it must start, at least 0;
    p̄ is the mean processing time of the jobs that remain. Ties by due date, then processing time.

    Args:
        p: (J,) processing times; jobs that take no time go first.
        d: (J,) due dates.
        look_ahead: k, in mean processing times.

    Raises:
        ConfigError: ``look_ahead`` not above 0.
        InstanceError: as ``single_machine_arrays``.
    """
    return _by_index(_ATC, p, d, look_ahead)


def covert(p: I64, d: I64, *, look_ahead: float = LOOK_AHEAD) -> I64:
    """Return the jobs by cost over time (Carroll 1965; Vepsalainen and Morton 1987).

    The job with the largest max(0, 1 - slack / (k p)) / p goes next. Ties by due date, then processing time.

    Args:
        p: (J,) processing times; jobs that take no time go first.
        d: (J,) due dates.
        look_ahead: k, the expected wait in processing times of the job itself.

    Raises:
        ConfigError: ``look_ahead`` not above 0.
        InstanceError: as ``single_machine_arrays``.
    """
    return _by_index(_COVERT, p, d, look_ahead)


def augment(p: I64, d: I64, order: I64) -> I64:
    """Return an order rebuilt job by job with moves to the end, never of more total tardiness (arXiv 2510.24013).

    After each appended job, the one earlier job is moved behind it that lowers the total tardiness of the jobs so far
    most, if one does. What a rule appends depends on which jobs are done, not on their order, so that this equals the
    same search inside the rule.

    Args:
        p: (J,) processing times.
        d: (J,) due dates.
        order: (J,) the jobs from first to last.

    Raises:
        InstanceError: as ``single_machine_arrays``.
        SolutionError: ``order`` is no permutation of the jobs.
    """
    p, d = single_machine_arrays(p, d)
    better = _permutation(order, len(p)).copy()
    _augment(p, d, better)
    return better


def _augmented(rule: SingleMachineRule) -> SingleMachineRule:
    @wraps(rule)
    def augmented(p: I64, d: I64) -> I64:
        return augment(p, d, rule(p, d))

    return augmented


RULES: Mapping[str, SingleMachineRule] = MappingProxyType(
    {"edd": edd, "spt": spt, "mdd": mdd, "mddc": mddc, "eddc": eddc, "psk": psk, "atc": atc, "covert": covert}
)
AUGMENTED_RULES: Mapping[str, SingleMachineRule] = MappingProxyType(
    {f"augmented-{name}": _augmented(rule) for name, rule in RULES.items()}
)


def _permutation(order: npt.ArrayLike, jobs: int) -> I64:
    array = np.asarray(order)
    if array.shape != (jobs,) or not np.issubdtype(array.dtype, np.integer):
        raise SolutionError(f"field order: {array.dtype} of shape {array.shape}, expected integers of shape ({jobs},)")
    if not np.array_equal(np.sort(array), np.arange(jobs)):
        raise SolutionError(f"field order: expected each job from 0 to {jobs - 1} once")
    return np.ascontiguousarray(array, dtype=np.int64)


def _by_index(rule: int, p: I64, d: I64, look_ahead: float) -> I64:
    if not 0.0 < look_ahead < np.inf:
        raise ConfigError(f"option look_ahead: {look_ahead}, expected more than 0")
    p, d = single_machine_arrays(p, d)
    order: I64 = np.lexsort((p, d))
    _dispatch(rule, p, d, float(look_ahead), order)
    return order


@inner
def _take(order: I64, place: int, found: int) -> None:
    """Move the job at ``found`` forward to ``place``; those between keep their order."""
    job = order[found]
    for i in range(found, place, -1):
        order[i] = order[i - 1]
    order[place] = job


@inner
def _key(rule: int, p: int, d: int, now: int, longest: int, mean: float, look_ahead: float) -> float:
    """Return a rule's key of a job that could start now, beside others of that longest and mean processing time."""
    key = float(max(now + p, d))
    if rule == _MDDC:
        # With no work done and none left the ratios are 0 / 0; such jobs differ in their due dates only.
        share = min(p / (now + longest), 1.0) if now + longest != 0 else 0.0
        delay = p / (now + mean) if now + mean != 0.0 else 0.0
        key = max(p * 1.1 + now, float(d)) * (1.0 + share * share / (1.0 + share * share)) + delay
    elif rule != _MDD:
        slack = max(d - p - now, 0)
        if p <= 0:
            key = -np.inf
        elif rule == _ATC:
            # The logarithm: far from due dates the index itself would underflow to ties. The mean is only below 1
            # where a job of no time goes first anyway.
            key = slack / (look_ahead * max(mean, 1.0)) + np.log(p)
        else:
            key = -max(0.0, 1.0 - slack / (look_ahead * p)) / p
    return key


@kernel
def _dispatch(rule: int, p: I64, d: I64, look_ahead: float, order: I64) -> None:
    """Bring the jobs into the order in which a rule takes them, the first of least key at each decision."""
    now = 0
    for place in range(len(order)):
        total, longest = 0, p[order[place]]
        for i in range(place, len(order)):
            total += p[order[i]]
            longest = max(longest, p[order[i]])
        mean = total / (len(order) - place)
        found, least = place, 0.0
        for i in range(place, len(order)):
            key = _key(rule, p[order[i]], d[order[i]], now, longest, mean, look_ahead)
            if i == place or key < least:
                found, least = i, key
        now += p[order[found]]
        _take(order, place, found)


@kernel
def _eddc(p: I64, d: I64, order: I64) -> None:
    before = 0
    for i in range(len(order)):
        j, end = i, before
        before += p[order[i]]
        while j > 0 and d[order[j]] < d[order[j - 1]]:
            last = order[j - 1]
            if d[last] > end:
                order[j - 1], order[j] = order[j], last
            end -= p[last]
            j -= 1


@kernel
def _psk(p: I64, d: I64, order: I64) -> None:
    now = 0
    for place in range(len(order)):
        found = place
        if now + p[order[place]] < d[order[place]]:
            for i in range(place + 1, len(order)):
                if d[order[found]] <= now + p[order[i]]:
                    break
                if d[order[i]] < d[order[found]]:
                    found = i
        now += p[order[found]]
        _take(order, place, found)


@kernel
def _augment(p: I64, d: I64, order: I64) -> None:
    end = 0
    for last in range(len(order)):
        end += p[order[last]]
        found, most = -1, 1
        done, late_jobs, lateness = end, 0, 0
        # From the end, where what the jobs behind can gain at most is known; of equal moves the first wins.
        for i in range(last, -1, -1):
            job = order[i]
            late = max(done - d[job], 0)
            loss = max(end - d[job], 0) - late
            if min(p[job] * late_jobs, lateness) - loss >= most:
                gain = _moved_gain(p, d, order, i, last, end) - loss
                if gain >= most:
                    found, most = i, gain
            done -= p[job]
            late_jobs += late > 0
            lateness += late
        if found >= 0:
            moved = order[found]
            for j in range(found, last):
                order[j] = order[j + 1]
            order[last] = moved


@inner
def _moved_gain(p: I64, d: I64, order: I64, moved: int, last: int, end: int) -> int:
    """Return by how much less late the jobs behind ``moved`` up to ``last`` are without its processing time."""
    now, gain = end, 0
    for j in range(last, moved, -1):
        job = order[j]
        gain += max(now - d[job], 0) - max(now - p[order[moved]] - d[job], 0)
        now -= p[job]
    return gain
