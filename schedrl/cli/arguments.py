"""Arguments and options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

__all__ = ["FamilyName", "JsonFlag", "Seed", "TimeLimit"]

FamilyName: TypeAlias = Annotated[str, typer.Argument(help="Problem family, see: schedrl families.")]
JsonFlag: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, nothing else.")]
Seed: TypeAlias = Annotated[int, typer.Option("--seed", "-s", min=0, help="Seed of all random numbers.")]
TimeLimit: TypeAlias = Annotated[
    float, typer.Option("--time-limit", "-t", min=0.001, help="Wall seconds per instance.")
]
