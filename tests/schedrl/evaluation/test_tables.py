from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console
from toy_family import CRASH, ENTRIES, FAMILY, LPT, SPT

from schedrl.evaluation import ComparisonOptions, compare
from schedrl.evaluation.tables import headline, print_summary


def test_tables_show_ranking_groups_and_who_left_something_unsolved(tmp_path: Path) -> None:
    summary = compare(FAMILY, ENTRIES, [SPT, LPT, CRASH], ComparisonOptions(out=tmp_path, suite="hand"))
    text = io.StringIO()
    print_summary(summary, Console(file=text, width=120))
    lines = [line.split() for line in text.getvalue().splitlines() if line.strip()]
    assert headline(summary) == (
        "toy/hand: total_completion on 3 instances; references: 1 optimal, 1 best-known, 1 bound"
    )
    assert [line[:4] for line in lines if line[0] == "lpt"] == [
        ["lpt", "clairvoyant", "3/3", "59.44"],
        ["lpt", "76.7", "25.0", "59.4"],
    ]
    # The crashing one left an instance out, so it ranks last although its mean gap is lower.
    assert [line[0] for line in lines if line[0] in ("spt", "lpt", "crash", "crash*")] == [
        *("spt", "lpt", "crash"),
        *("spt", "lpt", "crash*"),
    ]
