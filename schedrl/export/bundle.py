"""Write trained policies as bundles; every bundle is checked against torch before it exists."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import inspect
import json
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from schedrl import __version__
from schedrl.atomic import replacing
from schedrl.errors import BundleError, ConfigError
from schedrl.export.manifest import DECODER, ENCODER, MANIFEST, Manifest, read_manifest
from schedrl.export.onnx_graphs import OPSET, to_onnx
from schedrl.export.parity import measure_parity
from schedrl.export.runtime import BundlePolicy, open_sessions
from schedrl.families import Family, get_family
from schedrl.policies.network import NetworkConfig, PolicyNetwork
from schedrl.training.config import TrainConfig, load_config

__all__ = ["TOLERANCE", "export_run", "load_network", "write_bundle"]

TOLERANCE = 1e-4
"""A bundle whose embeddings or logits differ from torch by more is not written."""

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip archive can name


def export_run(run: Path, out: Path, *, simulator: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Write the best policy of a run folder as a bundle and return a summary of it.

    A run that is still going, or was interrupted, exports what it has. ``simulator`` overrides options of the
    simulator that the policy trained in, where it plays better with others.

    Raises:
        ConfigError: the folder lacks ``best.pt`` or ``config.yaml``, or one of them is damaged.
        BundleError: the exported graphs differ from torch.
    """
    best = _load_best(run / "best.pt")
    config = load_config(run / "config.yaml")
    family = get_family(best["family"])
    network = _network(best, run / "best.pt")
    quality = {
        "validation_gap": sum(best["validation"].values()) / max(len(best["validation"]), 1),
        "validation": best["validation"],
        "validation_reference": config.validation.reference or "bound",
    }
    provenance = _provenance(run, config, best["steps"])
    options = {**config.simulator, **(simulator or {})}
    write_bundle(network, family, out, provenance=provenance, quality=quality, simulator=options)
    manifest = read_manifest(out)
    return {
        "family": family.name,
        "decisions": best["steps"],
        "validation_gap": quality["validation_gap"],
        "parity": max(manifest["parity"].values()),
        "bytes": out.stat().st_size,
    }


def load_network(path: Path) -> PolicyNetwork:
    """Return the best network of a run, in evaluation mode on the CPU.

    Args:
        path: a ``best.pt`` file, or the run folder that holds one.

    Raises:
        ConfigError: missing, damaged, or trained on features that the installed family no longer has.
    """
    path = path / "best.pt" if path.is_dir() else path
    return _network(_load_best(path), path)


def write_bundle(
    network: PolicyNetwork,
    family: Family,
    out: Path,
    *,
    provenance: Mapping[str, Any],
    quality: Mapping[str, Any],
    simulator: Mapping[str, Any] | None = None,
) -> Path:
    """Export a network, check it against torch and write it atomically; equal input gives equal bytes.

    Args:
        network: trained on the features of ``family``.
        family: goes into the manifest with its features.
        out: the bundle, by convention ``NAME.schedrl``.
        provenance: how the network was trained, as JSON-able data.
        quality: what was measured of it, as JSON-able data.
        simulator: options of the family's simulator in training; the manifest completes them with today's
            defaults, so that later defaults do not change what the policy sees.

    Raises:
        ConfigError: an option that the family's simulator does not have.
        BundleError: embeddings or logits differ from torch by more than ``TOLERANCE`` on any case.
    """
    options = _simulator_options(family, simulator or {})
    members = to_onnx(network, family.features)
    manifest = Manifest(
        family=family.name,
        features=family.features,
        network=network.config.to_dict(),
        simulator=options,
        opset=OPSET,
        parity={},
        provenance=provenance,
        quality=quality,
        sha256={name: hashlib.sha256(content).hexdigest() for name, content in members.items()},
    )
    policy = BundlePolicy(manifest, open_sessions(members, threads=1, source=str(out)))
    parity = measure_parity(network, policy, family.features)
    for name, error in parity.items():
        if not error <= TOLERANCE:
            raise BundleError(f"{out}: not written: {name} differ from torch by {error:.1e}, at most {TOLERANCE:.0e}")
    rounded = {name: float(f"{error:.1e}") for name, error in parity.items()}
    _write_archive(out, dataclasses.replace(manifest, parity=rounded), members)
    return out


def _write_archive(out: Path, manifest: Manifest, members: Mapping[str, bytes]) -> None:
    contents = {MANIFEST: manifest.to_json().encode(), ENCODER: members[ENCODER], DECODER: members[DECODER]}
    with replacing(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in contents.items():
            # Stored, as compressed bytes depend on the version of zlib and weights hardly shrink.
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, content)


def _simulator_options(family: Family, given: Mapping[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(family.make_simulator).parameters.values()
    defaults = {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}
    for name in given:
        if name not in defaults:
            raise ConfigError(f"simulator option {name!r}: {family.name} has {', '.join(defaults) or 'none'}")
    return defaults | dict(given)


def _load_best(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; a run writes it at its first validation")
    try:
        best: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        raise ConfigError(f"{path}: not readable weights: {' '.join(str(error).split())[:120]}") from None
    for field in ("network", "config", "family", "steps", "validation"):
        if not isinstance(best, dict) or field not in best:
            raise ConfigError(f"{path}: field {field} is missing; expected the best.pt of a training run")
    return dict(best)


def _network(best: Mapping[str, Any], path: Path) -> PolicyNetwork:
    try:
        network = PolicyNetwork(get_family(best["family"]).features, NetworkConfig(**best["config"]))
        network.load_state_dict(best["network"])
    except (RuntimeError, TypeError) as error:
        detail = " ".join(str(error).split())[:160]
        raise ConfigError(f"{path}: weights do not fit this version's {best['family']} network: {detail}") from None
    return network.eval()


def _provenance(run: Path, config: TrainConfig, steps: int) -> dict[str, Any]:
    curve = _curve(run / "curve.csv")
    summary = _summary(run / "summary.json")
    written = time.strftime("%Y-%m-%d", time.gmtime((run / "best.pt").stat().st_mtime))
    return {
        "config": yaml.safe_load(config.to_yaml()),
        "seed": config.seed,
        "decisions": steps,
        "wall_s": summary.get("wall_s", curve["seconds"][-1] if curve["seconds"] else None),
        "date": summary.get("finished", written),
        "schedrl": __version__,
        "summary": summary,
        "curve": curve,
    }


def _curve(path: Path) -> dict[str, list[float]]:
    """Return the validation curve by column; empty columns without a file."""
    rows = list(csv.DictReader(_text(path).splitlines()))
    try:
        return {column: [float(row[column]) for row in rows] for column in ("decisions", "seconds", "gap")}
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"{path}: damaged, expected numbers in the columns decisions, seconds and gap") from None


def _summary(path: Path) -> dict[str, Any]:
    """Return the run's summary; empty for a run that has not ended."""
    try:
        summary = json.loads(_text(path) or "{}")
    except ValueError as error:
        raise ConfigError(f"{path}: damaged, not valid JSON: {error}") from None
    if not isinstance(summary, dict):
        raise ConfigError(f"{path}: damaged, expected a JSON object")
    return summary


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
