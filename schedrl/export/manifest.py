"""What a bundle says about itself, and reading bundles with every check that needs no other package.

A bundle is a zip archive of ``manifest.json``, ``encoder.onnx`` and ``decoder.onnx``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schedrl.errors import BundleError
from schedrl.graphs import Feature, FeatureTable

__all__ = [
    "DECODER",
    "ENCODER",
    "MANIFEST",
    "SCHEMA",
    "Manifest",
    "feature_difference",
    "read_archive",
    "read_manifest",
]

MANIFEST, ENCODER, DECODER = "manifest.json", "encoder.onnx", "decoder.onnx"

_KIND, _VERSION = "schedrl/bundle/", 1
SCHEMA = f"{_KIND}{_VERSION}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is known about an exported policy."""

    family: str
    features: FeatureTable  # what the policy was trained on, in column order
    network: Mapping[str, int]  # NetworkConfig
    simulator: Mapping[str, Any]  # every option of the family's simulator that the policy was trained with
    opset: int
    parity: Mapping[str, float]  # the largest differences to torch, measured when the bundle was written
    provenance: Mapping[str, Any]  # how the policy was trained
    quality: Mapping[str, Any]  # what was measured of it
    sha256: Mapping[str, str]  # of every other member of the archive

    def to_json(self) -> str:
        """Return the text of ``manifest.json``."""
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str = "<manifest>") -> Manifest:
        """Read ``to_json`` output.

        Raises:
            BundleError: not a manifest, of a newer schema, or a field is missing or malformed.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise BundleError(f"{source}: {MANIFEST}: not JSON: {error}") from None
        schema = data.get("schema") if isinstance(data, dict) else None
        _require_schema(schema, source)
        values = {}
        for field in dataclasses.fields(cls):
            if field.name not in data:
                raise BundleError(f"{source}: {MANIFEST}: field {field.name} is missing")
            values[field.name] = data[field.name]
            expected = {"family": str, "opset": int}.get(field.name, dict)
            if not isinstance(values[field.name], expected):
                raise BundleError(f"{source}: {MANIFEST}: field {field.name}: expected {expected.__name__}")
        try:
            values["features"] = _feature_table(values["features"])
        except (KeyError, TypeError) as error:
            raise BundleError(f"{source}: {MANIFEST}: field features: malformed: {error}") from None
        return cls(**values)


def read_manifest(path: Path | str) -> dict[str, Any]:
    """Return the manifest of a bundle as plain data, after verifying the whole archive.

    Raises:
        BundleError: see ``read_archive``.
    """
    manifest, _ = read_archive(path)
    data: dict[str, Any] = json.loads(manifest.to_json())
    return data


def read_archive(path: Path | str) -> tuple[Manifest, dict[str, bytes]]:
    """Return the manifest and the ONNX members of a bundle, by name.

    Raises:
        BundleError: unreadable, not a zip archive, truncated, a member is missing or does not match its
            checksum, or of a newer schema.
    """
    source = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = Manifest.from_json(_member(archive, MANIFEST, source), source=source)
            members = {name: _member(archive, name, source) for name in (ENCODER, DECODER)}
    except OSError as error:
        raise BundleError(f"{source}: cannot be read: {error.strerror or error}") from None
    except zipfile.BadZipFile:
        raise BundleError(f"{source}: {_damage(Path(path))}") from None
    for name, content in members.items():
        if hashlib.sha256(content).hexdigest() != manifest.sha256.get(name):
            raise BundleError(f"{source}: {name}: checksum differs from the manifest's; the file was changed")
    return manifest, members


def feature_difference(found: FeatureTable, expected: FeatureTable) -> str | None:
    """Return the first difference in names, order or bounds of two feature tables in words, None if equal."""
    for field in dataclasses.fields(FeatureTable):
        ours, theirs = ([_column(entry) for entry in getattr(table, field.name)] for table in (expected, found))
        for place in range(max(len(ours), len(theirs))):
            pair = [names[place] if place < len(names) else "nothing" for names in (theirs, ours)]
            if pair[0] != pair[1]:
                return f"{field.name.replace('_', ' ')} column {place}: {pair[0]}, expected {pair[1]}"
    return None


def _column(entry: Feature | str) -> str:
    return entry if isinstance(entry, str) else f"{entry.name} [{entry.low}, {entry.high}]"


def _require_schema(schema: object, source: str) -> None:
    number = schema.removeprefix(_KIND) if isinstance(schema, str) and schema.startswith(_KIND) else ""
    if number.isdecimal() and int(number) > _VERSION:
        raise BundleError(f"{source}: written by a newer schedrl (bundle schema {number}, this one reads {_VERSION})")
    if schema != SCHEMA:
        raise BundleError(f"{source}: {MANIFEST}: field schema: {schema!r:.60}, expected {SCHEMA!r}")


def _member(archive: zipfile.ZipFile, name: str, source: str) -> bytes:
    try:
        return archive.read(name)
    except KeyError:
        raise BundleError(f"{source}: member {name} is missing; not a policy bundle, or an incomplete one") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        # RuntimeError: encrypted, or an unknown compression.
        raise BundleError(f"{source}: {name}: damaged: {error}") from None


def _damage(path: Path) -> str:
    with path.open("rb") as file:
        started = file.read(2) == b"PK"
    return "truncated or damaged zip archive" if started else "not a policy bundle (no zip archive)"


def _feature_table(data: Mapping[str, Any]) -> FeatureTable:
    columns: dict[str, Any] = {}
    for field in dataclasses.fields(FeatureTable):
        entries = data[field.name]
        columns[field.name] = tuple(entry if isinstance(entry, str) else Feature(**entry) for entry in entries)
    return FeatureTable(**columns)
