"""Train the policies that the package ships, one configuration after the other, and export their bundles."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import typer

__all__ = ["train_policies"]


def train_policies(
    policies: Sequence[str],
    out: Path,
    only: Sequence[str] | None,
    played_with: Mapping[str, Mapping[str, Any]],
) -> None:
    """Train and export policies into ``out/NAME`` and ``out/NAME.schedrl``.

    Args:
        policies: names of configurations in ``configs`` and of the bundles, in order: some start from the weights of
            one before them.
        out: folder of the run folders; an interrupted run continues, a finished one is only exported again.
        only: some of the policies, all by default.
        played_with: options of the simulator by policy that differ from training.

    Raises:
        typer.BadParameter: a name in ``only`` is none of the policies.
    """
    from schedrl.export.bundle import export_run
    from schedrl.training.config import load_config
    from schedrl.training.run import train

    unknown = [name for name in only or () if name not in policies]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r}, expected one of {', '.join(policies)}", param_hint="--only")
    for name in only or policies:
        run = out / name
        if not (run / "summary.json").exists():
            with resources.as_file(resources.files("schedrl.experiments") / "configs" / f"{name}.yaml") as path:
                config = load_config(path)
            if config.initial_weights:
                start = out / Path(config.initial_weights).parent.name / "best.pt"
                config = dataclasses.replace(config, initial_weights=str(start))
            train(config, run, resume=(run / "checkpoint.pt").exists())
        summary = export_run(run, out / f"{name}.schedrl", simulator=played_with.get(name))
        print(f"{name}: validation gap {100 * summary['validation_gap']:+.2f} %, {summary['decisions']} decisions")
