"""Recorder dumps: written by torch where there is torch, and by hand to see that no pickle can do harm."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schedrl.envs.moe.recorder import read_recorder
from schedrl.envs.moe.torch_archive import open_archive
from schedrl.errors import InstanceError

MAP = [[0, 1, 2, 3, 0, 2], [3, 2, 1, 0, 0, 0]]  # expert of each of six slots


def save(path: Path, data: Any) -> Path:
    """Save with torch, arrays as tensors."""
    torch = pytest.importorskip("torch")

    def tensors(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return torch.from_numpy(value)
        if isinstance(value, dict):
            return {key: tensors(item) for key, item in value.items()}
        return [tensors(item) for item in value] if isinstance(value, list) else value

    torch.save(tensors(data), path)
    return path


def record(number: int, rank: int, counts: Any) -> dict[str, Any]:
    return {
        "forward_pass_id": number,
        "rank": rank,
        "gatherer_key": "primary",
        "global_physical_count": np.array(counts),
        "topk_ids_of_layer": np.zeros((2, 5, 1), dtype=np.int16),
    }


def per_pass(records: list[Any], slot_map: Any = MAP) -> dict[str, Any]:
    return {"records": records, "last_physical_to_logical_map": np.array(slot_map)}


def test_stat_mode_holds_the_counts_themselves(tmp_path: Path) -> None:
    counts = np.arange(1, 25, dtype=np.int32).reshape(2, 3, 4)
    path = save(tmp_path / "a.pt", {"rank": 0, "logical_count": counts, "average_utilization_rate": [0.5, None]})
    assert (read_recorder(path) == counts).all()
    turned = save(tmp_path / "b.pt", {"rank": 0, "logical_count": counts.transpose(1, 0, 2)})
    assert (read_recorder(turned) == counts.transpose(1, 0, 2)).all()  # strides of torch are respected


def test_counts_of_slots_are_summed_over_replicas_and_ranks_in_order_of_passes(tmp_path: Path) -> None:
    first = [record(8, 0, [[1, 0, 0, 0, 2, 0], [5, 0, 0, 0, 0, 0]]), record(7, 0, [[1, 1, 1, 1, 1, 1]] * 2)]
    second = [record(8, 1, [[0, 3, 4, 5, 0, 6], [0, 1, 1, 1, 1, 1]]), record(7, 1, np.zeros((2, 6), dtype=np.int64))]
    save(tmp_path / "rank0.pt", per_pass(first))
    save(tmp_path / "rank1.pt", per_pass(second))
    expected = [[[2, 1, 2, 1], [3, 1, 1, 1]], [[3, 3, 10, 5], [3, 1, 1, 5]]]  # passes 7 and 8, by hand
    assert read_recorder(tmp_path).tolist() == expected


def test_the_dump_of_one_rank_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "rank0.pt", per_pass([record(1, 0, [[9, 9, 9, 0, 0, 0]] * 2)]))
    with pytest.raises(InstanceError, match=r"global_physical_count: 3 of 6 experts have no token .* the dump of one"):
        read_recorder(path)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ([1, 2], "no recorder dump"),
        ({"rank": 0}, "no recorder dump"),
        ({"logical_count": np.zeros((2, 3, 4), dtype=np.int64)}, "field logical_count: all zero"),
        ({"logical_count": -np.ones((3, 4), dtype=np.int64)}, "field logical_count: window 0 layer 0 expert 0 has -1"),
        ({"logical_count": np.full((3, 4), np.nan)}, "field logical_count: .* nan"),
        ({"logical_count": [[1, 2]]}, "field logical_count: got list, expected a tensor"),
        (per_pass([]), "field records: expected a list of at least one"),
        (per_pass([{"rank": 0}]), r"field records\[0\].forward_pass_id: missing"),
        (per_pass([{"forward_pass_id": 1}]), r"records\[0\].global_physical_count: got nothing, expected a tensor"),
        (per_pass([record(1, 0, [[1, 2]])]), r"shape \(1, 2\), the slot map has \(2, 6\)"),
        (per_pass([record(1, 0, np.ones((2, 6)))] * 2), "pass 1 of rank 0 was recorded twice"),
        (per_pass([record(1, 0, np.zeros((2, 6)))]), "6 of 6 experts have no token"),
        (per_pass([record(1, 0, np.ones((2, 6)))], [[0, 1, 2, 3, 0, 9]] * 2), "an expert outside 0 to 5"),
        (per_pass([record(1, 0, np.ones((2, 6)))], [[0, 1, 3, 3, 0, 0]] * 2), "layer 0 has no slot for expert 2"),
        ({"records": [record(1, 0, [[1]])]}, "field last_physical_to_logical_map: got nothing"),
    ],
)
def test_broken_dumps_are_named(tmp_path: Path, data: Any, problem: str) -> None:
    path = save(tmp_path / "dump.pt", data)
    with pytest.raises(InstanceError, match=problem) as caught:
        read_recorder(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_files_of_one_folder_must_belong_together(tmp_path: Path) -> None:
    with pytest.raises(InstanceError, match=r"no file, expected at least one \*.pt"):
        read_recorder(tmp_path)
    save(tmp_path / "a.pt", per_pass([record(1, 0, np.ones((2, 6)))]))
    other = save(tmp_path / "b.pt", per_pass([record(1, 1, np.ones((2, 6)))], MAP[::-1]))
    with pytest.raises(InstanceError, match=r"last_physical_to_logical_map: differs from that of .*a\.pt"):
        read_recorder(tmp_path)
    save(other, {"logical_count": np.ones((2, 3))})
    with pytest.raises(InstanceError, match="already a sum over ranks, read it alone"):
        read_recorder(tmp_path)


def archive(path: Path, data: bytes, storage: bytes = b"", compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("a/data.pkl", data)
        file.writestr("a/data/0", storage)
    return path


class _Harm:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self.target,))


class _Call:
    """Pickles as the call of a function by its name."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> Any:
        return (eval, self.arguments)


def tensor(shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> bytes:
    """Return the pickle of a table with one tensor of int64, as torch writes it but for its persistent ids."""

    def number(value: int) -> bytes:
        return b"I%d\n" % value

    def row(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(Vstorage\nctorch\nLongStorage\nV0\nVcpu\nI4\ntQ"
    build = b"ctorch._utils\n_rebuild_tensor_v2\n("
    return b"}(Vlogical_count\n" + build + storage + number(offset) + row(shape) + row(strides) + b"tRu."


def test_a_pickle_runs_nothing(tmp_path: Path) -> None:
    target = tmp_path / "touched"
    for index, data in enumerate([_Harm(target), _Call(f"open({str(target)!r}, 'w')")]):
        path = archive(tmp_path / f"{index}.pt", pickle.dumps({"logical_count": data}))
        with pytest.raises(InstanceError, match=f"{path}: "):
            read_recorder(path)
    assert not target.exists()


def test_tensors_are_read_without_torch(tmp_path: Path) -> None:
    storage = np.array([1, 2, 3, 4], dtype="<i8").tobytes()
    with open_archive(archive(tmp_path / "a.pt", tensor((2, 2), (1, 2)), storage)) as found:
        assert found.array(found.data["logical_count"], "x").tolist() == [[1, 3], [2, 4]]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (tensor((2, 3), (3, 1)), r"shape \(2, 3\) does not fit 4 stored values"),
        (tensor((2, 2), (2, 1), offset=1), "does not fit 4 stored values"),
        (tensor((1000000, 1000000), (0, 0)), "does not fit 4 stored values"),
        (tensor((2, 2), (2,)), "broken tensor"),
        (tensor((2, -2), (2, 1)), "broken tensor"),
        (tensor((2, 2), (2, 1)).replace(b"LongStorage", b"BFloat16Storage"), "a type that holds no counts"),
        (tensor((2, 2), (2, 1)).replace(b"V0\n", b"V7\n"), "member a/data/7 is missing"),
        (tensor((2, 2), (2, 1))[:-3], "broken pickle"),
    ],
)
def test_broken_tensors_are_named(tmp_path: Path, data: bytes, problem: str) -> None:
    path = archive(tmp_path / "a.pt", data, bytes(32))
    with pytest.raises(InstanceError, match=problem):
        read_recorder(path)


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with pytest.raises(InstanceError, match="cannot be read: No such file"):
        read_recorder(path)
    path.write_bytes(b"\x80\x02}.")
    with pytest.raises(InstanceError, match=r"no torch archive, expected what torch\.save writes"):
        read_recorder(path)
    with pytest.raises(InstanceError, match="compressed, which torch never does"):
        read_recorder(archive(path, b"}." * 99, compression=zipfile.ZIP_DEFLATED))
