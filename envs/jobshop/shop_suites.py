"""The named sets of shops: flexible, blocking and single-machine benchmarks, and generated dynamic ones.

Flexible and single-machine files are no part of the package. The environment variable ``SCHEDRL_DATA`` names the folder
with them. Training draws from other seeds than the generated sets.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from schedrl.benchmark_data import data_file, data_folder
from schedrl.envs.jobshop.flexible_format import read_flexible
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.shop import ShopInstance
from schedrl.envs.jobshop.shop_generators import blocking_shop, dynamic, total_tardiness_shop
from schedrl.envs.jobshop.single_machine_generators import SingleMachineProblem, read_single_machine
from schedrl.envs.jobshop.suites import load_entry
from schedrl.errors import InstanceError
from schedrl.families import Suite, SuiteEntry

__all__ = ["INTERRUPTION_PROBABILITIES", "SHOP_SUITES", "UTILISATIONS"]

UTILISATIONS = (0.7, 0.8, 0.9, 0.95)
INTERRUPTION_PROBABILITIES = (0.0, 0.05, 0.1, 0.2)
# First number of the seeds (first, k) of each generated set; training draws from other seeds.
_SEED = {"dynamic": 20261101, "blocking-interruptions": 20261102}
_DYNAMIC_SEEDS, _INTERRUPTION_SEEDS = 5, 10

_FLEXIBLE_BOUNDS = "jobshop/fjsp/bounds_fjsplib_2026.csv"
_FLEXIBLE_ORIGIN = (
    "files of github.com/SchedulingLab/fjsp-instances (MIT), bounds of ScheduleOpt/benchmarks FJSPLib, "
    "snapshot 2026-08-19"
)

_CARLIER = tuple(f"car{number}" for number in range(1, 9))
_HURINK = (
    *("mt06", "mt10", "mt20"),
    *(f"la{number:02d}" for number in range(1, 41)),
    *(f"abz{number}" for number in range(5, 10)),
    *_CARLIER,
    *(f"orb{number}" for number in range(1, 11)),
)


def _flexible_names(suite: str) -> dict[str, tuple[str, str]]:
    """Return file in ``jobshop/fjsp`` and name in the table of bounds of each instance of a suite."""
    if suite == "brandimarte":
        return {f"mk{k:02d}": (f"brandimarte/mk{k:02d}.txt", f"mk{k:02d}") for k in range(1, 16)}
    if suite == "kacem":
        return {f"kacem{k}": (f"kacem/k{k}.txt", f"kacem{k}") for k in range(1, 5)}
    if suite == "fattahi":
        # The table numbers the small (sfjs) and the medium ones (mfjs) through.
        sizes = [f"{size}fjs{k:02d}" for size in "sm" for k in range(1, 11)]
        return {name: (f"fattahi/{name}.txt", f"fattahi{k}") for k, name in enumerate(sizes, start=1)}
    variant = suite.removeprefix("hurink-")
    # The table says ft for the three instances that Muth and Thompson's book made known as mt.
    return {
        f"{name}-{variant}": (f"hurink/{variant}/{name}.txt", f"{name.replace('mt', 'ft')}_{variant}")
        for name in _HURINK
    }


def _flexible(suite: str) -> tuple[SuiteEntry, ...]:
    """Read a flexible suite from the folder of benchmark data.

    Raises:
        InstanceError: the variable is unset, a file is missing or broken, or an instance has no bounds.
    """
    return _flexible_from(suite, data_folder(suite, _FLEXIBLE_BOUNDS))


@cache
def _flexible_from(suite: str, root: Path) -> tuple[SuiteEntry, ...]:
    bounds = _bounds(data_file(suite, root, _FLEXIBLE_BOUNDS))
    entries = []
    for name, (file, row) in _flexible_names(suite).items():
        # SchedulingLab's copies count machines from 0, where the originals count from 1.
        shop = read_flexible(data_file(suite, root, f"jobshop/fjsp/{file}"), first_machine=0)
        if row not in bounds:
            raise InstanceError(f"suite {suite}: no bounds of {row} in {_FLEXIBLE_BOUNDS}, expected a row of that name")
        lower, upper = bounds[row]
        entries.append(SuiteEntry(instance=replace(shop, name=name), lower_bound=lower, best_known=upper, suite=suite))
    return tuple(entries)


@cache
def _bounds(path: Path) -> Mapping[str, tuple[float, float]]:
    """Return lower bound and best known value of each row."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        bounds = {}
        for row in reader:
            try:
                bounds[row["instance"]] = (float(row["lower_bound"]), float(row["upper_bound"]))
            except (KeyError, TypeError, ValueError):
                columns = "instance, lower_bound and upper_bound"
                raise InstanceError(f"{path}:{reader.line_num}: expected columns {columns}, numbers in both") from None
    return bounds


# Best makespans with swaps; proven optimal or not.
_SWAP_OPTIMA: Mapping[str, int] = MappingProxyType(
    {
        **{"ft06": 63, "ft10": 1068, "la01": 793, "la02": 793, "la03": 715, "la04": 743, "la05": 664, "la06": 1060},
        **{"la07": 1016, "la08": 1040, "la09": 1141, "la10": 1096, "la16": 1060, "la17": 929, "la18": 1025},
        **{"la19": 1043, "la20": 1060, "abz5": 1468, "abz6": 1145, "orb01": 1175, "orb02": 1041, "orb03": 1160},
        **{"orb04": 1146, "orb05": 995, "orb06": 1199, "orb07": 483, "orb08": 995, "orb09": 1039, "orb10": 1146},
    }
)
_SWAP_BEST: Mapping[str, int] = MappingProxyType(
    {
        **{"ft20": 1408, "la11": 1476, "la12": 1261, "la13": 1436, "la14": 1452, "la15": 1492, "la21": 1428},
        **{"la22": 1317, "la23": 1416, "la24": 1347, "la25": 1336, "la26": 1891, "la27": 2007, "la28": 1906},
        **{"la29": 1827, "la30": 1945, "la31": 2729, "la32": 2938, "la33": 2694, "la34": 2662, "la35": 2746},
        **{"la36": 1704, "la37": 1815, "la38": 1638, "la39": 1663, "la40": 1685},
    }
)
_SWAP_SOURCE = (
    "instances as in fisher-thompson, lawrence, adams-balas-zawack and applegate-cook; best makespans the better of "
    "OptalCP 0.9.2 and CP Optimizer 22.1, 1800 s on 4 cores, July 2023, of github.com/ScheduleOpt/optalcp-benchmarks; "
    "lower bounds where not optimal those of the classical problem"
)


@cache
def _blocking_swap() -> tuple[SuiteEntry, ...]:
    return tuple(_swap_entry(name) for name in sorted({**_SWAP_OPTIMA, **_SWAP_BEST}))


def _swap_entry(name: str) -> SuiteEntry:
    classical = load_entry(name)
    assert isinstance(classical.instance, JobShopInstance)
    shop = ShopInstance.from_job_shop(classical.instance, name=f"{name}-swap", blocking="swap")
    # Blocking only forbids schedules: bounds of the classical problem remain bounds.
    best = float(_SWAP_OPTIMA[name] if name in _SWAP_OPTIMA else _SWAP_BEST[name])
    lower = best if name in _SWAP_OPTIMA else classical.lower_bound
    return SuiteEntry(instance=shop, lower_bound=lower, best_known=best, suite="blocking-swap")


@cache
def _dynamic() -> tuple[SuiteEntry, ...]:
    entries = []
    for availability, label in ((1.0, "up"), (0.95, "breakdowns")):
        for utilisation in UTILISATIONS:
            for k in range(_DYNAMIC_SEEDS):
                shop = dynamic(
                    np.random.default_rng((_SEED["dynamic"], k)),
                    jobs=200,
                    machines=10,
                    utilisation=utilisation,
                    availability=availability,
                    name=f"dynamic-{label}-u{100 * utilisation:.0f}-{k}",
                )
                entries.append(_unknown(shop, f"dynamic-{label}-u{100 * utilisation:.0f}"))
    return tuple(entries)


@cache
def _blocking_interruptions() -> tuple[SuiteEntry, ...]:
    entries = []
    for probability in INTERRUPTION_PROBABILITIES:
        label = f"blocking-p{100 * probability:02.0f}"
        for k in range(_INTERRUPTION_SEEDS):
            shop = blocking_shop(
                np.random.default_rng((_SEED["blocking-interruptions"], k)),
                jobs=10,
                machines=10,
                shutdown_probability=probability,
                name=f"{label}-{k}",
            )
            entries.append(_unknown(shop, label))
    return tuple(entries)


def _unknown(shop: ShopInstance, suite: str) -> SuiteEntry:
    return SuiteEntry(instance=shop, lower_bound=None, best_known=None, suite=suite)


_TARDINESS_FILES: Mapping[str, str] = MappingProxyType(
    {
        "smtt-20-uniform": "jobshop/smtt/n20_uniform_800.txt",
        "smtt-20-normal": "jobshop/smtt/n20_normal_800.txt",
        "smtt-100": "jobshop/smtt/n100_200.txt",
        "smtt-200": "jobshop/smtt/n200_200.txt",
        "smtt-500": "jobshop/smtt/n500_200.txt",
    }
)


def _tardiness(suites: Sequence[str]) -> tuple[SuiteEntry, ...]:
    """Read sets of single-machine total tardiness from the folder of benchmark data.

    Raises:
        InstanceError: the variable is unset, or a file is missing or broken.
    """
    root = data_folder(suites[0], _TARDINESS_FILES[suites[0]])
    return tuple(entry for suite in suites for entry in _tardiness_from(suite, root))


@cache
def _tardiness_from(suite: str, root: Path) -> tuple[SuiteEntry, ...]:
    problems = read_single_machine(data_file(suite, root, _TARDINESS_FILES[suite]))
    # Some processing times of the normal set are negative, which no shop can have.
    return tuple(_tardiness_entry(suite, problem) for problem in problems if problem.p.min() >= 0)


def _tardiness_entry(suite: str, problem: SingleMachineProblem) -> SuiteEntry:
    shop = total_tardiness_shop(problem.p, problem.d, name=f"{suite}-{problem.number:03d}")
    # Raising due dates to 0 takes as much from the tardiness of jobs that are late in any order.
    optimum = float(problem.optimum + np.minimum(problem.d, 0).sum())
    return SuiteEntry(instance=shop, lower_bound=optimum, best_known=optimum, suite=suite)


def _suite(name: str, summary: str, source: str, load: Callable[[], Sequence[SuiteEntry]]) -> Suite:
    return Suite(name=name, summary=summary, source=source, load=load)


_BRANDIMARTE = "P. Brandimarte, Annals of Operations Research 41 (1993) 157-183"
_HURINK_SOURCE = "J. Hurink, B. Jurisch, M. Thole, OR Spektrum 15 (1994) 205-215"
_FLEXIBLE: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "brandimarte": ("15 flexible shops, 10x6 to 30x15", _BRANDIMARTE),
        "hurink-edata": ("66 flexible shops, few operations with a choice", _HURINK_SOURCE),
        "hurink-rdata": ("66 flexible shops, two alternatives on average", _HURINK_SOURCE),
        "hurink-vdata": ("66 flexible shops, half of the machines are alternatives", _HURINK_SOURCE),
        "fattahi": (
            "20 flexible shops, 2x2 to 12x8",
            "P. Fattahi, M. Saidi Mehrabad, F. Jolai, Journal of Intelligent Manufacturing 18 (2007) 331-342",
        ),
        "kacem": (
            "4 flexible shops, 4x5 to 15x10",
            "I. Kacem, S. Hammadi, P. Borne, IEEE Transactions on Systems, Man and Cybernetics C 32 (2002) 1-13",
        ),
    }
)
_POTTS = (
    "after C. N. Potts, L. N. Van Wassenhove, Operations Research Letters 1 (1982) 177-181; files and optima of "
    "github.com/ibrahimoguzc/DiscoverHeuristics, 100 jobs and more from github.com/vtkindt/1-dj-Sum-Tj"
)


def _suites() -> dict[str, Suite]:
    suites = [
        _suite(name, summary, f"{origin}; {_FLEXIBLE_ORIGIN}", partial(_flexible, name))
        for name, (summary, origin) in _FLEXIBLE.items()
    ]
    suites += [
        _suite(
            "blocking-swap",
            "55 classical job shops without room between machines, swaps allowed",
            _SWAP_SOURCE,
            _blocking_swap,
        ),
        _suite(
            "dynamic",
            "40 shops of 200 jobs on 10 machines, utilisation 0.7 to 0.95, half of them with breakdowns",
            "schedrl.envs.jobshop.shop_generators.dynamic, seeds in the code",
            _dynamic,
        ),
        _suite(
            "blocking-interruptions",
            "40 shops 10x10 without room, operations interrupted with probability 0, 0.05, 0.1 and 0.2",
            "schedrl.envs.jobshop.shop_generators.blocking_shop, seeds in the code, common to all probabilities",
            _blocking_interruptions,
        ),
        _suite(
            "smtt",
            "2095 problems of single-machine total tardiness, 20 to 500 jobs, optima known",
            _POTTS,
            partial(_tardiness, tuple(_TARDINESS_FILES)),
        ),
    ]
    for name in _TARDINESS_FILES:
        suites.append(_suite(name, f"the part {name} of smtt", _POTTS, partial(_tardiness, (name,))))
    return {suite.name: suite for suite in suites}


SHOP_SUITES: Mapping[str, Suite] = MappingProxyType(_suites())
