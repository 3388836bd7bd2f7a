"""``schedrl inspect``: what a file holds."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from schedrl.cli.arguments import JsonFlag
from schedrl.cli.console import emit_json, flattened, number, print_fields, print_table

__all__ = ["inspect"]


def inspect(
    file: Annotated[Path, typer.Argument(help="A .schedrl bundle, or a file of instances.")],
    family: Annotated[str, typer.Option("--family", "-f", help="Family of the instances.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Show what a file holds: the manifest of an exported policy, or instances with their sizes and bounds.

    For example:

        schedrl inspect policy.schedrl

        schedrl inspect my-shop.txt --family jobshop
    """
    if not file.is_file():
        raise FileNotFoundError(2, "no such file", str(file))
    if file.suffix == ".schedrl" or zipfile.is_zipfile(file):
        _inspect_bundle(file, as_json)
    else:
        _inspect_instances(file, family, as_json)


def _inspect_bundle(file: Path, as_json: bool) -> None:
    from schedrl.export import read_manifest

    manifest: Mapping[str, Any] = read_manifest(file)
    if as_json:
        emit_json({"file": str(file), "kind": "bundle", "manifest": manifest})
        return
    print_fields([("bundle", str(file)), *flattened(manifest)])


def _inspect_instances(file: Path, family: str, as_json: bool) -> None:
    from schedrl.cli.names import find_family, read_entries
    from schedrl.errors import ConfigError
    from schedrl.families import family_names

    names = family_names()
    if not family and len(names) > 1:
        raise ConfigError(f"{file}: not a bundle; name the family of its instances with --family {'|'.join(names)}")
    found = find_family(family or names[0])
    rows = [_described(found, entry.instance) for entry in read_entries(found, file)]
    if as_json:
        emit_json({"file": str(file), "kind": "instances", "family": found.name, "instances": rows})
        return
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [[str(row["name"]), *(number(row.get(column)) for column in columns[1:])] for row in rows]
    print_table(f"{file}: {len(rows)} instances of {found.name}", columns, cells)


def _described(family: Any, instance: Any) -> dict[str, Any]:
    graph = family.static_graph(instance)
    sizes = {"name": instance.name, "nodes": len(graph.node_features), "edges": int(graph.edge_index.shape[1])}
    return sizes | {f"{bound.name} bound": bound.value for bound in family.bounds(instance)}
