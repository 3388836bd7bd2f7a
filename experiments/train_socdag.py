"""Train the shipped policies of DAG scheduling and export them: static graphs, SoC streams, preferences.

Each follows its file in ``configs``; ``python -m schedrl.experiments.train_socdag --out runs/socdag`` trains all, an
interrupted run continues where it stopped, and a finished one is only exported again.
"""

from __future__ import annotations

import dataclasses
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["POLICIES", "main"]

POLICIES = (
    "socdag-start",
    "socdag",
    "socdag-stream",
    "socdag-stream-3pe-start",
    "socdag-stream-3pe",
    "socdag-preference",
)
"""Names of the configurations, and of the bundles made by them; some start from the weights of one before them."""
# Picked on generated instances: eight offered tasks instead of the five of training made 0.5 % on random graphs.
_PLAYED_WITH: dict[str, dict[str, int]] = {"socdag": {"window": 8}}


def main(
    out: Annotated[Path, typer.Option(help="Folder of the run folders and bundles.")],
    only: Annotated[list[str] | None, typer.Option(help="One of the policies; may be given several times.")] = None,
) -> None:
    """Train and export the policies into ``out/NAME`` and ``out/NAME.schedrl``."""
    from schedrl.export.bundle import export_run
    from schedrl.training.config import load_config
    from schedrl.training.run import train

    unknown = [name for name in only or () if name not in POLICIES]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r}, expected one of {', '.join(POLICIES)}", param_hint="--only")
    for name in only or POLICIES:
        run = out / name
        if not (run / "summary.json").exists():
            with resources.as_file(resources.files("schedrl.experiments") / "configs" / f"{name}.yaml") as path:
                config = load_config(path)
            if config.initial_weights:
                start = out / Path(config.initial_weights).parent.name / "best.pt"
                config = dataclasses.replace(config, initial_weights=str(start))
            train(config, run, resume=(run / "checkpoint.pt").exists())
        summary = export_run(run, out / f"{name}.schedrl", simulator=_PLAYED_WITH.get(name))
        print(f"{name}: validation gap {100 * summary['validation_gap']:+.2f} %, {summary['decisions']} decisions")


if __name__ == "__main__":
    typer.run(main)
