"""The named sets of buffers to pack: public benchmarks, read from a folder of the user's, and a generated one.

The public files are no part of the package. The environment variable ``SCHEDRL_DATA`` names the folder with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np

from schedrl.benchmark_data import DATA_VARIABLE, data_file, data_folder
from schedrl.envs.memmap.formats import read_minimalloc
from schedrl.envs.memmap.packing import OffsetPackingInstance, max_live
from schedrl.envs.memmap.packing_generators import known_optimum
from schedrl.families import Suite, SuiteEntry

__all__ = ["DATA_VARIABLE", "PACKING_SUITES"]

_CHALLENGING = "minimalloc_challenging/{}.1048576.csv"
_SMALL = "minimalloc_small/{}.csv"
_TORCH = "torch_traces/{}.csv"
_IDEALLOC = "idealloc_suite/{}.csv"
_MINIMALLOC = "github.com/google/minimalloc (Apache-2.0), of M. Moffitt, MiniMalloc, ASPLOS 2023"
_IDEALLOC_SOURCE = "github.com/cappadokes/idealloc (MIT), of arXiv 2504.04874"
# First number of the seeds (first, k); training draws from other seeds.
_DEMO_SEED = 20260914
_DEMO_BUFFERS = (12, 16, 20, 24, 32, 40, 50, 60, 80, 100)

# Names and files of each set, with the lowest known peak in bytes where it is not ``max_live``, a proven optimum.
_OPTIMAL: None = None
_FILES: Mapping[str, Mapping[str, tuple[str, int | None]]] = MappingProxyType(
    {
        "minimalloc-challenging": {
            name: (_CHALLENGING.format(name), {"D": 1037312, "J": 1015808}.get(name, _OPTIMAL))
            for name in "ABCDEFGHIJK"
        },
        "minimalloc-small": {
            f"small-{name.partition('.')[0]}": (_SMALL.format(name), _OPTIMAL)
            for name in ("a.6", "b.6", "c.8", "d.9", "e.12", "f.14", "g.7", "input.12")
        },
        "traces": {
            **{
                name: (_TORCH.format(f"trace_{name}"), _OPTIMAL)
                for name in ("resnet50_infer_b32", "resnet50_train_b32", "gpt2_infer_b4_t512", "gpt2_train_b4_t512")
            },
            "somas_resnet50": (_IDEALLOC.format("somas_resnet50"), _OPTIMAL),
        },
        "large": {
            "somas_pangu_2.6B": (_IDEALLOC.format("somas_pangu_2.6B"), 5572042815),
            "S_1": (_IDEALLOC.format("S_1"), 1501323945),
        },
    }
)


def _read(suite: str) -> tuple[SuiteEntry, ...]:
    """Read the files of a suite.

    Raises:
        InstanceError: the variable is unset, a file is missing, or one is broken.
    """
    return _entries(suite, data_folder(suite, f"memmap/{_first_file(suite)}"))


@cache
def _entries(suite: str, root: Path) -> tuple[SuiteEntry, ...]:
    entries = []
    for name, (file, best) in _FILES[suite].items():
        path = data_file(suite, root, f"memmap/{file}")
        # Peaks are compared: the capacity in the name of a file is no part of this problem.
        entries.append(_entry(replace(read_minimalloc(path), name=name), best))
    return tuple(entries)


def _first_file(suite: str) -> str:
    return next(iter(_FILES[suite].values()))[0]


def _entry(instance: OffsetPackingInstance, best: int | None) -> SuiteEntry:
    bound = max_live(instance)
    return SuiteEntry(instance=instance, lower_bound=float(bound), best_known=float(bound if best is None else best))


@cache
def _demo() -> tuple[SuiteEntry, ...]:
    drawn = (
        known_optimum(np.random.default_rng((_DEMO_SEED, k)), buffers=buffers)
        for k, buffers in enumerate(_DEMO_BUFFERS)
    )
    return tuple(
        # A solver must not be shown the cutting.
        _entry(replace(instance, name=f"packing-demo-{instance.buffers}", hint=None), None)
        for instance in drawn
    )


# Name, summary, source, loader.
_TABLE: tuple[tuple[str, str, str, Callable[[], tuple[SuiteEntry, ...]]], ...] = (
    (
        "minimalloc-challenging",
        "A to K, 154 to 454 buffers, nine with a proven optimum",
        f"{_MINIMALLOC}; peaks of D and J found by this project's packers",
        lambda: _read("minimalloc-challenging"),
    ),
    (
        "minimalloc-small",
        "8 instances of 5 or 6 buffers, optima proven",
        f"{_MINIMALLOC}, and github.com/fpedd/omnimalloc (Apache-2.0)",
        lambda: _read("minimalloc-small"),
    ),
    (
        "traces",
        "5 networks, 174 to 1042 buffers, optima proven",
        f"torch traces of ResNet-50 and GPT-2 by this project; SOMAS ResNet-50 of {_IDEALLOC_SOURCE}",
        lambda: _read("traces"),
    ),
    (
        "large",
        "SOMAS Pangu-2.6B with 18,692 and IOPDDL S_1 with 28,526 buffers",
        f"{_IDEALLOC_SOURCE}; peaks of first-fit-size and lowest-first-area",
        lambda: _read("large"),
    ),
    (
        "packing-demo",
        "10 generated instances of 12 to 100 buffers, optima known",
        "schedrl.envs.memmap.packing_generators.known_optimum, seeds in the code",
        _demo,
    ),
)

PACKING_SUITES: Mapping[str, Suite] = MappingProxyType(
    {name: Suite(name=name, summary=summary, source=source, load=load) for name, summary, source, load in _TABLE}
)
