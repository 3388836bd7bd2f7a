"""Find families, schedulers, suites, generators and instances by the names people type."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from schedrl.errors import InstanceError, UnknownNameError
from schedrl.families import Family, SuiteEntry, family_names, get_family
from schedrl.schedulers import SchedulerSpec, get_scheduler, schedulers_of

__all__ = ["find_family", "find_instance", "find_schedulers", "find_suites", "pick", "read_entries"]

_MAX_LISTED = 12


def pick(kind: str, name: str, known: Iterable[str], *, of: str = "") -> str:
    """Return ``name`` if it is known.

    Raises:
        UnknownNameError: it is not; the message names the closest known names, or all of a short list.
    """
    choices = sorted(known)
    if name in choices:
        return name
    close = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    if close:
        hint = f"did you mean {' or '.join(close)}?"
    elif len(choices) <= _MAX_LISTED:
        hint = f"choose from {', '.join(choices)}" if choices else "there is none"
    else:
        hint = f"there are {len(choices)}, such as {', '.join(choices[:_MAX_LISTED])}"
    raise UnknownNameError(f"unknown {kind} {name!r}{of and f' of {of}'}; {hint}")


def find_family(name: str) -> Family:
    """Return a family by name, or another game of one as ``FAMILY:GAME``."""
    plain, colon, _ = name.partition(":")
    return get_family(name if pick("family", plain, family_names()) and colon else plain)


def find_schedulers(family: Family, names: Iterable[str], problem: str = "") -> list[SchedulerSpec]:
    """Return scheduler specs; the ``family/`` prefix may be left out, ``@FILE`` plays the policy in a bundle.

    The single name ``all`` stands for every scheduler of the family, or every one that solves a kind of
    ``problem``.

    Raises:
        UnknownNameError: no such scheduler, or one that plays no exported policy.
        FileNotFoundError: no such bundle.
    """
    # All games of a family share its schedulers.
    prefix = f"{family.name.partition(':')[0]}/"
    short = {full.removeprefix(prefix) for full in schedulers_of(family.name)}
    found = []
    names = list(names)
    if names == ["all"]:
        every = schedulers_of(family.name).values()
        return [spec for spec in every if not problem or spec.problem in ("", problem)]
    for name in names:
        plain, at, bundle = name.strip().removeprefix(prefix).partition("@")
        if at and not Path(bundle).is_file():
            raise FileNotFoundError(2, "no such bundle", bundle)
        found.append(get_scheduler(f"{prefix}{pick('scheduler', plain, short)}{at}{bundle}"))
    return found


def find_suites(family: Family, names: str) -> tuple[str, list[SuiteEntry]]:
    """Return the joined name and the entries of comma-separated suites, files or folders; see ``find_suite``."""
    if names in family.suites or "," not in names or Path(names).exists():
        return find_suite(family, names)
    found = [find_suite(family, name.strip()) for name in names.split(",") if name.strip()]
    entries = [replace(entry, suite=name) for name, members in found for entry in members]
    return ",".join(name for name, _ in found), entries


def find_suite(family: Family, name: str) -> tuple[str, list[SuiteEntry]]:
    """Return the name and entries of a registered suite, or of a file or folder of instances."""
    path = Path(name)
    if name not in family.suites and path.exists():
        return path.stem, read_entries(family, path)
    suite = family.suites[pick("suite, file or folder", name, family.suites)]
    return suite.name, list(suite.load())


def read_entries(family: Family, path: Path) -> list[SuiteEntry]:
    """Read every instance of a file, or of all files of a folder in name order.

    Raises:
        InstanceError: a file is malformed, or there is no instance.
    """
    files = sorted(file for file in path.iterdir() if _visible_file(file)) if path.is_dir() else [path]
    entries = [
        SuiteEntry(instance=instance, lower_bound=None, best_known=None)
        for file in files
        for instance in family.read_instances(file)
    ]
    if not entries:
        raise InstanceError(f"{path}: no instance found, expected {family.title} files")
    return entries


def _visible_file(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


def find_instance(family: Family, name: str) -> SuiteEntry:
    """Return an instance named as a file, ``FILE#INSTANCE``, ``SUITE/INSTANCE``, or ``INSTANCE`` of any suite.

    Raises:
        InstanceError: the file is malformed or holds several instances and none is named.
        UnknownNameError: neither a file nor an instance of a suite.
        FileNotFoundError: the name looks like a path but there is no such file.
    """
    file, _, inner = name.partition("#")
    if Path(file).is_file():
        return _of_file(file, read_entries(family, Path(file)), inner)
    suite, slash, inner = name.rpartition("/")
    if slash and suite in family.suites:
        entries = {entry.instance.name: entry for entry in family.suites[suite].load()}
        return entries[pick("instance", inner, entries, of=f"suite {suite}")]
    known = {} if slash else _known_instances(family)
    # The name of an instance may hold a dot too.
    if name not in known and (slash or Path(name).suffix):
        raise FileNotFoundError(2, "no such file, nor SUITE/INSTANCE of a registered suite", name)
    return known[pick("instance", name, known)]


def _of_file(file: str, entries: Sequence[SuiteEntry], inner: str) -> SuiteEntry:
    by_name = {entry.instance.name: entry for entry in entries}
    if inner:
        return by_name[pick("instance", inner, by_name, of=file)]
    if len(entries) > 1:
        raise InstanceError(f"{file}: holds {len(entries)} instances, name one as {file}#{next(iter(by_name))}")
    return entries[0]


def _known_instances(family: Family) -> dict[str, SuiteEntry]:
    """Return the instances of all suites by name."""
    known: dict[str, SuiteEntry] = {}
    for suite in family.suites.values():
        try:
            entries = suite.load()
        except (InstanceError, FileNotFoundError):
            # A suite whose data is not on this computer must not hide the others.
            continue
        for entry in entries:
            known.setdefault(entry.instance.name, entry)
    return known
