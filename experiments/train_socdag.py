"""Train the shipped policies of DAG scheduling and export them: static graphs, SoC streams, preferences.

Each follows its file in ``configs``; ``python -m schedrl.experiments.train_socdag --out runs/socdag`` trains all, an
interrupted run continues where it stopped, and a finished one is only exported again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from schedrl.experiments.shipped_policies import train_policies

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
    train_policies(POLICIES, out, only, _PLAYED_WITH)


if __name__ == "__main__":
    typer.run(main)
