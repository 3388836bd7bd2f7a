"""The named sets of buffers to pack: sizes, known optima, and what happens without their files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from schedrl.envs.memmap.packing import OffsetPackingInstance, max_live
from schedrl.envs.memmap.packing_suites import DATA_VARIABLE, PACKING_SUITES
from schedrl.errors import InstanceError

NEEDS_DATA = pytest.mark.skipif(DATA_VARIABLE not in os.environ, reason="SCHEDRL_DATA is unset: no public instances")
# Buffers and most bytes live at once of each instance, from the tables of the data's notes.
SIZES = {
    "minimalloc-challenging": {
        "A": (154, 1048576),
        "B": (170, 1048576),
        "C": (203, 1039360),
        "D": (213, 986112),
        "E": (215, 1048576),
        "F": (296, 1048576),
        "G": (308, 1048576),
        "H": (316, 1048576),
        "I": (374, 1048576),
        "J": (409, 989184),
        "K": (454, 1048576),
    },
    "minimalloc-small": {
        "small-a": (5, 6),
        "small-b": (5, 6),
        "small-c": (5, 8),
        "small-d": (6, 9),
        "small-e": (5, 12),
        "small-f": (6, 14),
        "small-g": (6, 7),
        "small-input": (5, 12),
    },
    "traces": {
        "resnet50_infer_b32": (174, 154140672),
        "resnet50_train_b32": (999, 1407526612),
        "gpt2_infer_b4_t512": (243, 208998400),
        "gpt2_train_b4_t512": (975, 2147581956),
        "somas_resnet50": (1042, 1515472556),
    },
    "large": {"somas_pangu_2.6B": (18692, 5530099775), "S_1": (28526, 1498635932)},
}
BEST = {"D": 1037312, "J": 1015808, "somas_pangu_2.6B": 5572042815, "S_1": 1501323945}


def instances(suite: str) -> list[OffsetPackingInstance]:
    loaded = [entry.instance for entry in PACKING_SUITES[suite].load()]
    assert all(isinstance(instance, OffsetPackingInstance) for instance in loaded)
    return loaded  # type: ignore[return-value]


def test_suites_say_what_they_are() -> None:
    assert set(PACKING_SUITES) == {*SIZES, "packing-demo"}
    assert all(suite.name == name and suite.source and suite.summary for name, suite in PACKING_SUITES.items())


@NEEDS_DATA
@pytest.mark.parametrize("suite", SIZES)
def test_sizes_and_bounds_of_public_files(suite: str) -> None:
    entries = PACKING_SUITES[suite].load()
    assert {instance.name: (instance.buffers, max_live(instance)) for instance in instances(suite)} == SIZES[suite]
    for entry in entries:
        name, live = entry.instance.name, SIZES[suite][entry.instance.name][1]
        assert (entry.lower_bound, entry.best_known) == (live, BEST.get(name, live))
        assert entry.optimal is (name not in BEST)
        assert isinstance(entry.instance, OffsetPackingInstance) and entry.instance.capacity is None
    assert PACKING_SUITES[suite].load() is entries


@pytest.mark.parametrize("suite", SIZES)
def test_missing_files_are_one_line_that_names_the_variable(
    suite: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    with pytest.raises(InstanceError, match=rf"^suite {suite}: SCHEDRL_DATA is unset, expected") as unset:
        PACKING_SUITES[suite].load()
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    with pytest.raises(InstanceError, match=rf"^suite {suite}: no file {tmp_path}/memmap/.*SCHEDRL_DATA is") as missing:
        PACKING_SUITES[suite].load()
    assert "\n" not in str(unset.value) + str(missing.value)


def test_broken_files_are_named_with_their_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "memmap" / "minimalloc_challenging"
    folder.mkdir(parents=True)
    (folder / "A.1048576.csv").write_text("id,lower,upper,size\n0,0,3,4\n1,0,x,4\n")
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    with pytest.raises(InstanceError, match=r"A\.1048576\.csv:3: field upper: buffer 1: got 'x'"):
        PACKING_SUITES["minimalloc-challenging"].load()


def test_demo_needs_no_files_and_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    entries = PACKING_SUITES["packing-demo"].load()
    assert [instance.buffers for instance in instances("packing-demo")] == [12, 16, 20, 24, 32, 40, 50, 60, 80, 100]
    assert {(entry.lower_bound, entry.best_known) for entry in entries} == {(2.0**20, 2.0**20)}
    digest = hashlib.sha256()
    for instance in instances("packing-demo"):
        assert instance.hint is not None and (instance.hint == -1).all(), "the cutting is not shown"
        digest.update(np.stack([instance.lower, instance.upper, instance.size]).tobytes())
    # Results in reports are comparable only as long as this holds.
    assert digest.hexdigest()[:16] == "ddb37e2246f8e093"
