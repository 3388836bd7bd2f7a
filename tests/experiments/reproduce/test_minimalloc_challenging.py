from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from schedrl.envs.memmap.packing import OffsetPackingInstance
from schedrl.experiments.reproduce import minimalloc_challenging
from schedrl.experiments.reproduce.minimalloc_challenging import LARGE, PUBLISHED_S, measure, verdicts_of

COMMITTED = Path(str(minimalloc_challenging.__file__)).with_suffix(".csv")


def tiny(name: str) -> OffsetPackingInstance:
    lower = np.array([0, 1, 2, 0])
    return OffsetPackingInstance(name=name, lower=lower, upper=lower + 2, size=np.array([4, 2, 4, 1]))


def test_measures_times_for_the_suite_and_peaks_for_all() -> None:
    rows = measure([tiny("A"), tiny("S_1")], (0.1, 0.2))
    assert [row["peak_0.2s"] for row in rows] == [7, 7]
    assert [row["status"] for row in rows] == ["optimal", "optimal"]
    assert rows[0]["fit_s"] is not None and rows[1]["fit_s"] is None
    words = [str(verdict) for verdict in verdicts_of(rows)]
    assert "1 fit in" in words[0]
    assert f"{LARGE['S_1']:.4f}" in words[1] and words[1].endswith("met")
    assert words[2].endswith("1 of 1 proven optimal")


def test_times_alone_give_one_verdict() -> None:
    assert len(verdicts_of(measure([tiny("K")], ()))) == 1


def test_the_committed_table_meets_the_targets() -> None:
    rows = {row["instance"]: row for row in csv.DictReader(COMMITTED.open())}
    suite = [rows[name] for name in PUBLISHED_S]
    assert sum(float(row["fit_s"]) for row in suite) < 20.0
    assert rows["C"]["peak_60s"] == "1039360"
    assert all(row["status"] == "optimal" for row in suite if row["instance"] not in "DJ")
    for name, ratio in LARGE.items():
        assert float(rows[name]["ratio_60s"]) <= ratio + 5e-5
