"""Environments are registered whichever of gymnasium and schedrl is imported first, and neither imports the other."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "code",
    [
        "import schedrl, gymnasium; print(gymnasium.spec('schedrl/JobShop-v0').id)",
        "import gymnasium, schedrl; print(gymnasium.spec('schedrl/JobShop-v0').id)",
        "import gymnasium; print(gymnasium.make('schedrl:schedrl/JobShop-v0').spec.id.removeprefix('schedrl:'))",
        "import schedrl, gymnasium.envs.registration as r; print(r.spec('schedrl/JobShop-v0').id)",
        "import schedrl, schedrl.registration as r; r.register_with_gymnasium(); import gymnasium; "
        "print(gymnasium.spec('schedrl/JobShop-v0').id)",
    ],
)
def test_any_order_of_imports_finds_the_environments(code: str) -> None:
    assert run(code) == "schedrl/JobShop-v0"


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ("gymnasium", "numpy", "numba", "torch", "ortools")
    assert run(f"import schedrl, sys; print([name for name in {heavy} if name in sys.modules])") == "[]"


def test_the_registry_module_stays_itself() -> None:
    code = (
        "import schedrl, sys, inspect, gymnasium.envs.registration as r; "
        "print(inspect.getsource(r).startswith('\"\"\"'), any('schedrl' in type(f).__module__ for f in sys.meta_path))"
    )
    assert run(code) == "True False"
