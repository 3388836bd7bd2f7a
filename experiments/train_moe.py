"""Train the shipped policies of expert placement, rebalancing and caching, and export them.

Each follows its file in ``configs``; ``python -m schedrl.experiments.train_moe --out runs/moe`` trains all, an
interrupted run continues where it stopped, and a finished one is only exported again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from schedrl.experiments.shipped_policies import train_policies

__all__ = ["POLICIES", "main"]

POLICIES = ("moe", "moe-rebalance", "moe-cache-start", "moe-cache")
"""Names of the configurations, and of the bundles made by them; the last starts from the weights of the one before."""


def main(
    out: Annotated[Path, typer.Option(help="Folder of the run folders and bundles.")],
    only: Annotated[list[str] | None, typer.Option(help="One of the policies; may be given several times.")] = None,
) -> None:
    """Train and export the policies into ``out/NAME`` and ``out/NAME.schedrl``."""
    train_policies(POLICIES, out, only, {})


if __name__ == "__main__":
    typer.run(main)
