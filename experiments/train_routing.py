"""Train the shipped policy of request routing, and export it.

It follows the files in ``configs``, the second from the best weights of the first:
``SCHEDRL_DATA=FOLDER python -m schedrl.experiments.train_routing --out runs``, where the folder holds Mooncake's
conversation trace, whose first half is part of the training. An interrupted run continues where it stopped, and a
finished one is only exported again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from schedrl.experiments.shipped_policies import train_policies

__all__ = ["POLICIES", "main"]

POLICIES = ("routing-start", "routing")
"""Names of the configurations, and of the bundles made by them; the second starts from the first."""


def main(
    out: Annotated[Path, typer.Option(help="Folder of the run folders and bundles.")],
    only: Annotated[list[str] | None, typer.Option(help="One of the policies; may be given several times.")] = None,
) -> None:
    """Train and export the policies into ``out/NAME`` and ``out/NAME.schedrl``."""
    train_policies(POLICIES, out, only, {})


if __name__ == "__main__":
    typer.run(main)
