"""Every way a bundle can be wrong is refused in one line that says what is wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schedrl.envs.jobshop.observation import FEATURES
from schedrl.errors import BundleError
from schedrl.export import load, read_manifest
from schedrl.export.manifest import SCHEMA, Manifest, feature_difference


def rewritten(bundle: Path, out: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    """A copy of a bundle, valid as a zip archive, after ``change`` edited its members."""
    with zipfile.ZipFile(bundle) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out


def with_manifest(bundle: Path, out: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    def edit(members: dict[str, bytes]) -> None:
        manifest = json.loads(members["manifest.json"])
        change(manifest)
        members["manifest.json"] = json.dumps(manifest).encode()

    return rewritten(bundle, out, edit)


def assert_refused(path: Path, message: str, **options: Any) -> None:
    with pytest.raises(BundleError) as caught:
        load(path, **options)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text, text
    assert message in text


def test_manifest_survives_json(bundle: Path) -> None:
    manifest = load(bundle).manifest
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.features == FEATURES


def test_read_manifest_says_what_the_bundle_holds(bundle: Path) -> None:
    found = read_manifest(bundle)
    assert json.loads(json.dumps(found)) == found
    assert found["schema"] == SCHEMA == "schedrl/bundle/1"
    assert found["family"] == "jobshop" and found["opset"] == 20
    assert found["network"] == {"node_width": 16, "layers": 2, "candidate_width": 24}
    assert [feature["name"] for feature in found["features"]["node"]][:2] == ["is_machine", "duration"]
    assert set(found["sha256"]) == {"encoder.onnx", "decoder.onnx"}


def test_missing_file(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none.schedrl", "cannot be read: No such file or directory")
    assert_refused(tmp_path, "cannot be read: Is a directory")


@pytest.mark.parametrize("content", [b"", b"family: jobshop\n", bytes(range(256)) * 40])
def test_not_a_zip(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.schedrl"
    path.write_bytes(content)
    assert_refused(path, "not a policy bundle (no zip archive)")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.999])
def test_truncated(bundle: Path, tmp_path: Path, share: float) -> None:
    path = tmp_path / "x.schedrl"
    content = bundle.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert_refused(path, "truncated or damaged zip archive")


@pytest.mark.parametrize("name", ["manifest.json", "encoder.onnx", "decoder.onnx"])
def test_missing_member(bundle: Path, tmp_path: Path, name: str) -> None:
    path = rewritten(bundle, tmp_path / "x.schedrl", lambda members: members.pop(name))
    assert_refused(path, f"member {name} is missing")


@pytest.mark.parametrize("name", ["encoder.onnx", "decoder.onnx"])
def test_changed_member(bundle: Path, tmp_path: Path, name: str) -> None:
    def flip(members: dict[str, bytes]) -> None:
        content = bytearray(members[name])
        content[len(content) // 2] ^= 1
        members[name] = bytes(content)

    assert_refused(rewritten(bundle, tmp_path / "x.schedrl", flip), f"{name}: checksum differs")


def test_flipped_byte_on_disk(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.schedrl"
    content = bytearray(bundle.read_bytes())
    with zipfile.ZipFile(bundle) as archive:
        content[archive.getinfo("encoder.onnx").header_offset + 5000] ^= 1
    path.write_bytes(content)
    assert_refused(path, "encoder.onnx: damaged: Bad CRC-32")


def test_changed_checksum(bundle: Path, tmp_path: Path) -> None:
    path = with_manifest(bundle, tmp_path / "x.schedrl", lambda manifest: manifest["sha256"].clear())
    assert_refused(path, "encoder.onnx: checksum differs")


def test_newer_schema(bundle: Path, tmp_path: Path) -> None:
    path = with_manifest(bundle, tmp_path / "x.schedrl", lambda manifest: manifest.update(schema="schedrl/bundle/2"))
    assert_refused(path, "written by a newer schedrl (bundle schema 2, this one reads 1)")


@pytest.mark.parametrize("schema", [None, 1, "schedrl/bundle/", "schedrl/bundle/0", "other/1"])
def test_foreign_schema(bundle: Path, tmp_path: Path, schema: object) -> None:
    path = with_manifest(bundle, tmp_path / "x.schedrl", lambda manifest: manifest.update(schema=schema))
    assert_refused(path, f"field schema: {schema!r}, expected 'schedrl/bundle/1'")


@pytest.mark.parametrize("text", [b"{", b"\xff\xfe", b""])
def test_manifest_that_is_not_json(bundle: Path, tmp_path: Path, text: bytes) -> None:
    path = rewritten(bundle, tmp_path / "x.schedrl", lambda members: members.update({"manifest.json": text}))
    assert_refused(path, "manifest.json: not JSON")


def test_manifest_that_is_no_object(bundle: Path, tmp_path: Path) -> None:
    path = rewritten(bundle, tmp_path / "x.schedrl", lambda members: members.update({"manifest.json": b"[1]"}))
    assert_refused(path, "field schema: None")


def test_missing_and_malformed_fields(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.schedrl"
    assert_refused(
        with_manifest(bundle, path, lambda manifest: manifest.pop("simulator")), "field simulator is missing"
    )
    assert_refused(
        with_manifest(bundle, path, lambda manifest: manifest.update(opset="20")), "field opset: expected int"
    )
    for change in ({"node": [{"name": "x"}]}, {"node": None}, {"node": [3]}):
        broken = with_manifest(bundle, path, lambda manifest, change=change: manifest["features"].update(change))
        assert_refused(broken, "field features: malformed")
    assert_refused(
        with_manifest(bundle, path, lambda manifest: manifest["features"].pop("context")), "field features: malformed"
    )


def test_wrong_family(bundle: Path, tmp_path: Path) -> None:
    assert_refused(bundle, "a policy of family 'jobshop', expected 'routing'", family="routing")
    path = with_manifest(bundle, tmp_path / "x.schedrl", lambda manifest: manifest.update(family="knitting"))
    assert_refused(path, "a policy of family 'knitting', which is none of jobshop")


def test_reordered_features(bundle: Path, tmp_path: Path) -> None:
    def swap(manifest: dict[str, Any]) -> None:
        columns = manifest["features"]["candidate"]
        columns[2], columns[3] = columns[3], columns[2]

    path = with_manifest(bundle, tmp_path / "x.schedrl", swap)
    second, third = FEATURES.candidate[2], FEATURES.candidate[3]
    assert_refused(path, f"candidate column 2: {third.name} [0.0, 1.0], expected {second.name} [0.0, 1.0]")


def test_onnx_that_cannot_run(bundle: Path, tmp_path: Path) -> None:
    def replace(members: dict[str, bytes]) -> None:
        manifest = json.loads(members["manifest.json"])
        members["encoder.onnx"] = b"no graph"
        manifest["sha256"]["encoder.onnx"] = hashlib.sha256(b"no graph").hexdigest()
        members["manifest.json"] = json.dumps(manifest).encode()

    assert_refused(rewritten(bundle, tmp_path / "x.schedrl", replace), "encoder.onnx: onnxruntime cannot load it")


def test_read_manifest_refuses_what_load_refuses(bundle: Path, tmp_path: Path) -> None:
    path = with_manifest(bundle, tmp_path / "x.schedrl", lambda manifest: manifest["sha256"].clear())
    with pytest.raises(BundleError, match="checksum differs"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, None),
        ({"edge_types": FEATURES.edge_types[:-1]}, "edge types column 3: nothing, expected machine-to-operation"),
        ({"candidate_nodes": ("machine", "operation")}, "candidate nodes column 0: machine, expected operation"),
        (
            {"context": (dataclasses.replace(FEATURES.context[0], low=-1.0), *FEATURES.context[1:])},
            "context column 0: progress [-1.0, 1.0], expected progress [0.0, 1.0]",
        ),
        ({"node": (*FEATURES.node, FEATURES.node[0])}, "node column 8: is_machine [0.0, 1.0], expected nothing"),
        ({"node": (dataclasses.replace(FEATURES.node[0], why="better words"), *FEATURES.node[1:])}, None),
    ],
)
def test_feature_difference(change: dict[str, Any], expected: str | None) -> None:
    assert feature_difference(dataclasses.replace(FEATURES, **change), FEATURES) == expected
