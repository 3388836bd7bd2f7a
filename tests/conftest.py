"""How many random cases property tests draw, and which process runs which file.

Property tests draw 100 cases, or as many as SCHEDRL_EXAMPLES says.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling

settings.register_profile(
    "schedrl",
    max_examples=int(os.environ.get("SCHEDRL_EXAMPLES", "100")),
    deadline=None,  # the first call of a kernel compiles it
    derandomize="SCHEDRL_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("schedrl")

_OF_ALL = ("schedrl", "experiments")


class _FamilyScheduling(LoadFileScheduling):  # type: ignore[misc]
    """Keep each process at one family while there are others, so that no two compile the same kernels at once."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        self._family_of: dict[Any, str] = {}

    def _assign_work_unit(self, node: Any) -> None:
        left: Counter[str] = Counter()
        for file, tests in self.workqueue.items():
            left[_family(file)] += len(tests)
        if self._family_of.get(node) not in left:
            others = [family for family in left if family not in self._family_of.values()]
            # What belongs to no family uses kernels of all, which are compiled by then.
            self._family_of[node] = max(others or left, key=lambda family: (family not in _OF_ALL, left[family]))
        file = next(file for file in self.workqueue if _family(file) == self._family_of[node])
        self.workqueue.move_to_end(file, last=False)
        super()._assign_work_unit(node)


def _family(file: str) -> str:
    _, area, name, *_ = PurePosixPath(file).parts
    return area if area in _OF_ALL else name


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    return _FamilyScheduling(config, log) if config.getoption("dist") == "loadfile" else None
