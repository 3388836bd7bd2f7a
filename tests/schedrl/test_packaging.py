"""The package list, the links, the wheel and the pinned versions agree with what is on disk."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
LINKS = ("baselines", "envs", "experiments")
HEAVY = ("torch", "torch_geometric", "stable_baselines3", "matplotlib", "ortools", "pandas", "onnxruntime", "scipy")


def package_folders() -> dict[str, Path]:
    """Import name of every package on disk, and its real folder."""
    tops = {"schedrl": ROOT / "schedrl", **{f"schedrl.{link}": ROOT / link for link in LINKS}}
    found = {}
    for name, top in tops.items():
        for marker in top.rglob("__init__.py"):
            relative = marker.parent.relative_to(top)
            if not (name == "schedrl" and relative.parts[:1] and relative.parts[0] in LINKS):
                found[".".join([name, *relative.parts])] = marker.parent
    return found


def payload(folder: Path) -> set[str]:
    """File names directly in a folder, and in those of its folders that are no packages."""
    names = set()
    for path in folder.iterdir():
        if path.name.startswith((".", "__pycache__")) or path.is_symlink():
            continue
        if path.is_file():
            names.add(path.name)
        elif not (path / "__init__.py").exists():
            names |= {f"{path.name}/{inner}" for inner in payload(path)}
    return names


def run_python(code: str, *, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True)


def test_package_list_is_what_is_on_disk() -> None:
    assert SETUPTOOLS["packages"] == sorted(package_folders())


def test_every_module_lies_in_a_listed_package() -> None:
    folders = set(package_folders().values())
    modules = {path.parent for top in ("schedrl", *LINKS) for path in (ROOT / top).rglob("*.py")}
    outside = {folder for folder in modules if folder.resolve() not in folders}
    assert not outside, "folders with modules but no __init__.py"


@pytest.mark.parametrize("link", LINKS)
def test_source_tree_and_install_use_the_same_folder(link: str) -> None:
    assert SETUPTOOLS["package-dir"][f"schedrl.{link}"] == link
    assert (ROOT / "schedrl" / link / "__init__.py").samefile(ROOT / link / "__init__.py")


@pytest.mark.parametrize("link", LINKS)
def test_bare_import_is_refused(link: str) -> None:
    done = run_python(f"import {link}", cwd=ROOT)
    assert done.returncode == 1
    assert f"ImportError: import schedrl.{link}, not {link}" in done.stderr


def test_import_loads_nothing_heavy() -> None:
    code = f"import sys, schedrl, schedrl.cli; print(sorted(set(sys.modules) & set({HEAVY})))"
    done = run_python(code, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def requirements() -> dict[str, Requirement]:
    groups = [PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()]
    parsed = [Requirement(line) for group in groups for line in group]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


@pytest.mark.parametrize("name", sorted(requirements()))
def test_constraints_pin_every_direct_requirement_within_its_range(name: str) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {
        canonicalize_name(found[1]): found[2] for line in lines if (found := re.fullmatch(r"([\w.-]+)==(\S+)", line))
    }
    assert requirements()[name].specifier.contains(pins[name])


def test_constraints_hold_no_local_versions() -> None:
    # "+cpu" builds are not on the package index, so such a pin would install nowhere else.
    pins = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    assert "torch==2.13.0" in pins
    assert not [line for line in pins if "+" in line]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy without the links, as a checkout on a system without symbolic links has it."""
    if find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed: pip install 'schedrl[dev]'")
    tree = tmp_path_factory.mktemp("tree")
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for link in LINKS:
        shutil.copytree(ROOT / link, tree / link, ignore=ignored)
    shutil.copytree(ROOT / "schedrl", tree / "schedrl", ignore=shutil.ignore_patterns("__pycache__", ".*", *LINKS))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-build-isolation",
        "--no-deps",
        "--no-index",
        "-w",
        "dist",
        ".",
    ]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = (tree / "dist").glob("*.whl")
    return built


def test_wheel_holds_every_file_of_every_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if name.startswith("schedrl/")}
    expected = {
        f"{package.replace('.', '/')}/{name}"
        for package, folder in package_folders().items()
        for name in payload(folder)
    }
    assert inside == expected
    assert "schedrl/py.typed" in inside


def test_wheel_is_small_and_says_what_it_is(wheel: Path) -> None:
    assert wheel.name == f"schedrl-{PROJECT['project']['version']}-py3-none-any.whl"
    assert wheel.stat().st_size < 10_000_000
    with zipfile.ZipFile(wheel) as archive:
        (info,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(info).decode()
        scripts = archive.read(info.replace("METADATA", "entry_points.txt")).decode()
    assert "License-Expression: MIT" in metadata
    assert "schedrl = schedrl.cli:main" in scripts


def test_unpacked_wheel_solves_an_instance(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import sys, schedrl.cli as cli; print(cli.__file__);"
        "code = cli.main(['solve', 'jobshop', 'spt', 'ft06']);"
        "print(sorted(set(sys.modules) & {'torch'})); sys.exit(code)"
    )
    done = run_python(code, cwd=tmp_path, path=tmp_path / "site")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "site" / "schedrl" / "cli") in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
