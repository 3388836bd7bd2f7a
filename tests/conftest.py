"""How many random cases tests draw (100, or as many as SCHEDRL_EXAMPLES says), and which tests run in one process."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "schedrl",
    max_examples=int(os.environ.get("SCHEDRL_EXAMPLES", "100")),
    deadline=None,  # the first call of a kernel compiles it
    derandomize="SCHEDRL_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("schedrl")

_TESTS = Path(__file__).parent
# Longest first, so that processes end together.
_FAMILIES = ("memmap", "socdag", "moe", "routing", "jobshop")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a family's tests in one process, which compiles its kernels once; tests of all families come last."""
    keys = {item.nodeid: _group(item.path.relative_to(_TESTS).parts) for item in items}
    for item in items:
        item.add_marker(pytest.mark.xdist_group(keys[item.nodeid][1]))
    items.sort(key=lambda item: keys[item.nodeid][0])


def _group(parts: tuple[str, ...]) -> tuple[int, str]:
    """Return the place in the order and the group of a test file."""
    if len(parts) > 2 and parts[1] in _FAMILIES:
        return _FAMILIES.index(parts[1]), parts[1]
    return len(_FAMILIES) + (parts[-1] == "test_contracts.py"), "/".join(parts)
