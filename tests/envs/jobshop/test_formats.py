"""Every format is read and written, every broken file gives one line that says where and what."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.envs.jobshop.formats import FORMATS, format_instance, parse_instances, read_instance, read_instances
from schedrl.envs.jobshop.formats import write_instance as write
from schedrl.envs.jobshop.generators import recirculating, uniform
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.suites import load_instance
from schedrl.errors import ConfigError, InstanceError

FT06 = """\
6 6
2 1 0 3 1 6 3 7 5 3 4 6
1 8 2 5 4 10 5 10 0 10 3 4
2 5 3 4 5 8 0 9 1 1 4 7
1 5 0 5 2 5 3 3 4 8 5 9
2 9 1 3 4 5 5 4 0 3 3 1
1 3 3 3 5 9 0 10 4 4 2 1
"""
SMALL = JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 4), (0, 0)]], name="small")
TAILLARD = """\
Nb of jobs, Nb of Machines, Time seed, Machine seed, Upper bound, Lower bound
 2 2 840612802 398197754 7 7
Times
 3 2
 4 0
Machines
 1 2
 2 1
"""
COLLECTION = """\
 A file of job shop instances.

 +++++++++++++++++++++++++++++
 instance small
 +++++++++++++++++++++++++++++
 Somebody 2x2 instance (Table 1, instance 5)
 2 2
 0 3 1 2
 1 4 0 0
 +++++++++++++++++++++++++++++
 instance other
 +++++++++++++++++++++++++++++
 No comment
 1 3
 2 5
 +++ EOF
"""
SCHEDULEOPT = json.dumps(
    {
        "instance": "small",
        "family": "x",
        "year": "1988",
        "machines": 2,
        "jobs": 2,
        "data": [
            {"job": 1, "operation": 1, "machine": 0, "duration": 0},
            {"job": 0, "operation": 0, "machine": 0, "duration": 3},
            {"job": 0, "operation": 1, "machine": 1, "duration": 2},
            {"job": 1, "operation": 0, "machine": 1, "duration": 4},
        ],
    }
)


def parse(text: str, name: str = "small") -> list[JobShopInstance]:
    return list(parse_instances(text, source="f.txt", name=name))


@pytest.mark.parametrize(
    "text",
    [
        "2 2\n0 3 1 2\n1 4 0 0\n",
        "2 2\r\n0 3 1 2\r\n1 4 0 0",
        "# name\n\n 2\t2 # jobs machines\n\n0 3 1 2\n# +++\n1  4  0  0\n\n",
        "2 2\n0 3 1 2 -1 -1\n1 4 0 0 -1 -1\n",
        TAILLARD,
        TAILLARD.partition("\n")[2],
        TAILLARD.replace("840612802 398197754 7 7", ""),
        SCHEDULEOPT,
        SMALL.to_json(),
    ],
)
def test_every_layout_of_the_same_instance(text: str) -> None:
    assert parse(text) == [SMALL]


def test_ft06_text_is_the_shipped_instance() -> None:
    assert parse(FT06, "ft06") == [load_instance("ft06")]


def test_rows_may_differ_in_length_and_repeat_a_machine() -> None:
    (instance,) = parse("3 2\n0 3 0 4 1 1\n1 4\n0 1 1 1\n")
    assert instance.job_offset.tolist() == [0, 3, 4, 6]
    assert instance.machine.tolist() == [0, 0, 1, 1, 0, 1]


def test_terminated_rows_may_differ_in_length() -> None:
    (instance,) = parse("2 2\n0 3 0 4 1 1 -1 -1\n1 4 -1 -1")
    assert instance.job_offset.tolist() == [0, 3, 4]


def test_collection_yields_named_instances() -> None:
    first, second = parse(COLLECTION)
    assert first == SMALL
    assert (second.name, second.machines, second.duration.tolist()) == ("other", 3, [5])


def test_taillard_file_of_several_instances_numbers_them() -> None:
    instances = parse(TAILLARD * 3, "tai2_2")
    assert [instance.name for instance in instances] == ["tai2_2-01", "tai2_2-02", "tai2_2-03"]
    assert all(instance.duration.tolist() == [3, 2, 4, 0] for instance in instances)


JOBS = st.lists(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 10**9)), min_size=1, max_size=6), min_size=1, max_size=6
)


@pytest.mark.parametrize("format", ["standard", "json", "scheduleopt"])
@given(jobs=JOBS)
def test_round_trip_of_any_jobs(format: str, jobs: list[list[tuple[int, int]]]) -> None:
    instance = JobShopInstance.from_jobs(jobs, name="any", machines=5)
    assert parse(format_instance(instance, format), "any") == [instance]


@given(jobs=st.integers(1, 6), machines=st.integers(1, 6), seed=st.integers(0, 2**32))
def test_round_trip_of_rectangular_jobs(jobs: int, machines: int, seed: int) -> None:
    instance = uniform(np.random.default_rng(seed), jobs=jobs, machines=machines)
    assert parse(format_instance(instance, "taillard"), instance.name) == [instance]


@pytest.mark.parametrize("format", list(FORMATS))
def test_round_trip_through_a_file(format: str, tmp_path: Path) -> None:
    write(SMALL, tmp_path / "small.txt", format)
    assert read_instance(tmp_path / "small.txt") == SMALL
    assert [path.name for path in tmp_path.iterdir()] == ["small.txt"]


def test_taillard_text_refuses_jobs_of_unequal_length() -> None:
    instance = JobShopInstance.from_jobs([[(0, 1)], [(0, 1), (1, 1)]], name="ragged")
    with pytest.raises(InstanceError, match="ragged: Taillard text holds exactly 2 operations per job"):
        format_instance(instance, "taillard")


def test_unknown_format_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'xml', expected one of standard, taillard, json, scheduleopt"):
        write(SMALL, tmp_path / "x", "xml")
    with pytest.raises(InstanceError, match="missing/x: cannot be written: No such file or directory"):
        write(SMALL, tmp_path / "missing" / "x")
    assert list(tmp_path.iterdir()) == []


STANDARD_ERRORS = {
    "header of one": ("6\n0 1\n", "f.txt:1: field header: 1 values, expected 2, 'jobs machines'"),
    "header of three": ("10 6 1.15\n", "f.txt:1: field header value 3: '1.15', expected an integer"),
    "header with a word": ("2 x\n0 1\n", "f.txt:1: field header value 2: 'x', expected an integer"),
    "no jobs": ("0 2\n", "f.txt:1: field jobs: 0, expected at least 1"),
    "negative machines": ("1 -2\n0 1\n", "f.txt:1: field machines: -2, expected at least 1"),
    "header only": ("2 2\n", "f.txt:1: field jobs: the file ends after 0 rows, expected 2 as in the header"),
    "rows missing": ("# c\n3 2\n0 1 1 1\n0 1 1 1\n", "f.txt:4: field jobs: the file ends after 2 rows, expected 3"),
    "rows too many": ("1 2\n0 1\n\n0 1\n0 1\n", "f.txt:4: field jobs: one row too many, expected 1 as in the header"),
    "huge job count": ("2000000000 2\n0 1\n", "f.txt:2: field jobs: the file ends after 1 rows, expected 2000000000"),
    "odd row": ("2 2\n0 1 1 1\n0 1 1\n", "f.txt:3: field job 1: 3 values, expected pairs of machine and duration"),
    "fraction": ("1 2\n0 1.5\n", "f.txt:2: field job 0 value 2: '1.5', expected an integer"),
    "word": ("1 2\n0 1 one 1\n", "f.txt:2: field job 0 value 3: 'one', expected an integer"),
    "underscore": ("1 2\n0 1_0\n", "f.txt:2: field job 0 value 2: '1_0', expected an integer"),
    "other digits": ("1 2\n0 \u0663\n", "f.txt:2: field job 0 value 2: '\u0663', expected an integer"),
    "too large": ("1 2\n0 99999999999999999999\n", "f.txt:2: field job 0 value 2: '99999999999999999999', expected"),
    "beyond exact": (
        "1 2\n0 9007199254740993\n",
        "f.txt:2: field job 0 operation 0 duration: 9007199254740993, expected",
    ),
    "sum beyond exact": (
        "1 2\n0 4503599627370496 1 1\n",
        "f.txt:2: f: field duration: the sum of all durations exceeds",
    ),
    "negative duration": (
        "2 2\n0 1 1 1\n0 1 1 -3\n",
        "f.txt:3: field job 1 operation 1 duration: -3, expected 0 to",
    ),
    "machine too high": ("2 2\n0 1 1 1\n1 1 2 1\n", "f.txt:3: field job 1 operation 1 machine: 2, expected 0 to 1"),
    "machine negative": ("2 2\n0 1 1 1\n-1 1 2 1\n", "f.txt:3: field job 1 operation 0 machine: -1, expected 0 to 1"),
    "terminator missing": ("2 2\n0 1 -1 -1\n0 1 1 1", "f.txt:3: field job 1: no '-1 -1' at the end of the row"),
    "only a terminator": ("2 2\n0 1 -1 -1\n-1 -1\n", "f.txt:3: field job 1: no operation, expected at least one"),
    "cut in the last row": (
        FT06[: FT06.rindex(" 2 1")],
        "f.txt:7: field job 5: the file ends after 5 operations, expected 6",
    ),
}


@pytest.mark.parametrize(("text", "message"), STANDARD_ERRORS.values(), ids=STANDARD_ERRORS)
def test_broken_standard_text(text: str, message: str) -> None:
    with pytest.raises(InstanceError, match=f"^{re.escape(message)}") as error:
        parse(text, "f")
    assert "\n" not in str(error.value)


@given(cut=st.integers(0, len(FT06.rstrip()) - 1))
def test_a_file_cut_between_values_is_never_read_as_the_whole(cut: int) -> None:
    text = FT06[:cut]
    if text[-1:].isspace() or FT06[cut].isspace():
        with pytest.raises(InstanceError):
            parse(text)


OTHER_ERRORS = {
    "empty": ("", "f.txt: empty file, expected standard text"),
    "blank": (" \n\t\n", "f.txt: empty file, expected standard text"),
    "comments only": ("# one\n# two\n", "f.txt: empty file, expected standard text"),
    "prose": ("\nDear reader\n1 2\n", "f.txt:2: no known format, expected standard text"),
    "csv": ("job,machine\n1,2\n", "f.txt:1: no known format, expected standard text"),
    "times without header": ("Times\n1\nMachines\n1\n", "f.txt:1: field header: missing above 'Times'"),
    "no machines block": ("1 1\nTimes\n1\n", "f.txt:3: field Machines: block missing, expected it after the Times"),
    "times cut": (TAILLARD.replace(" 4 0\n", ""), "f.txt:4: field Times: the file ends after 1 rows, expected 2"),
    "machines cut": (TAILLARD[: TAILLARD.rindex(" 2 1")], "f.txt:7: field Machines: the file ends after 1 rows"),
    "machines row cut": (TAILLARD[:-3], "f.txt:8: field Machines job 1: 1 values, expected 2"),
    "machines from 0": (
        TAILLARD.replace(" 1 2\n", " 0 1\n"),
        "f.txt:7: field job 0 operation 0 machine: 0, expected 1 to 2",
    ),
    "negative time": (
        TAILLARD.replace(" 4 0", " 4 -9"),
        "f.txt:5: field job 1 operation 1 duration: -9, expected 0 to",
    ),
    "word in times": (TAILLARD.replace(" 4 0", " 4 x"), "f.txt:5: field Times job 1 value 2: 'x', expected an integer"),
    "section without numbers": (
        COLLECTION.replace(" 1 3\n 2 5\n", ""),
        "f.txt:11: field header: missing in instance other, expected a line 'jobs machines'",
    ),
    "section with a row missing": (COLLECTION.replace(" 1 4 0 0\n", ""), "f.txt:8: field jobs: the file ends after 1"),
    "broken json": ('{\n"a": 1,\n}', "f.txt:3: not valid JSON"),
    "deep json": ("[" * 100_000, "f.txt: not valid JSON: nested too deeply"),
    "json list": ("[1]", "f.txt: JSON without a field schema or data, expected standard text"),
    "other schema": ('{"schema": "x"}', "f.txt: field schema: expected 'schedrl/jobshop-instance/1'"),
    "missing field": ('{"data": []}', "f.txt: field instance: expected str, got None"),
    "no data": (
        '{"instance": "x", "jobs": 1, "machines": 1, "data": []}',
        "f.txt: field data: empty, expected an entry per operation",
    ),
    "fraction in data": (
        SCHEDULEOPT.replace('"duration": 4', '"duration": 4.5'),
        "f.txt: field data[3].duration: 4.5, expected an integer >= 0",
    ),
    "negative in data": (SCHEDULEOPT.replace('"duration": 4', '"duration": -4'), "f.txt: field data[3].duration: -4"),
    "entry is no object": (
        SCHEDULEOPT.replace('"data": [', '"data": [7, '),
        "f.txt: field data[0].job: None, expected",
    ),
    "job count": (SCHEDULEOPT.replace('"jobs": 2', '"jobs": 3'), "f.txt: field jobs: 3, expected the number of jobs"),
    "huge job": (SCHEDULEOPT.replace('"job": 1', '"job": 2000000000'), "f.txt: field jobs: 2, expected the number of"),
    "machine count": (
        SCHEDULEOPT.replace('"machines": 2', '"machines": 1'),
        "f.txt: small: field machine: operation 1 uses machine 1, expected 0 to 0",
    ),
    "operation twice": (
        SCHEDULEOPT.replace('"operation": 1, "machine": 1', '"operation": 0, "machine": 1'),
        "f.txt: field data: job 0 has operation 0, expected 1",
    ),
}


@pytest.mark.parametrize(("text", "message"), OTHER_ERRORS.values(), ids=OTHER_ERRORS)
def test_broken_text_of_other_formats(text: str, message: str) -> None:
    with pytest.raises(InstanceError, match=f"^{re.escape(message)}") as error:
        parse(text, "f")
    assert "\n" not in str(error.value)


def test_unknown_format_names_all_supported_ones() -> None:
    with pytest.raises(InstanceError, match=r"standard text .* Taillard .* OR-library .* JSON or ScheduleOpt JSON"):
        parse("hello")


@settings(max_examples=300)
@given(text=st.text(alphabet='0123456789 \n-x#{}[]",:.', max_size=60))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        assert parse(text)
    except InstanceError as error:
        assert str(error).startswith("f.txt") and "\n" not in str(error)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"2 2\n\x00\x01\x02", ":2: binary file, expected standard text"),
        (b"\x1f\x8b\x08\x08abc", ":1: not UTF-8 text, expected standard text"),
        ("2 2\n0 1 1 1\n".encode("utf-16"), ":1: binary file"),
        (b"", ": empty file, expected"),
    ],
)
def test_binary_and_empty_files(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    path.write_bytes(data)
    with pytest.raises(InstanceError, match=f"^{re.escape(str(path) + message)}") as error:
        read_instance(path)
    assert "\n" not in str(error.value)


def test_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "small.txt").write_bytes(b"\xef\xbb\xbf2 2\n0 3 1 2\n1 4 0 0\n")
    assert read_instance(tmp_path / "small.txt") == SMALL


def test_missing_file_and_folder_where_a_file_is_expected(tmp_path: Path) -> None:
    with pytest.raises(InstanceError, match=r"x\.txt: cannot be read: No such file or directory"):
        read_instance(tmp_path / "x.txt")
    with pytest.raises(InstanceError, match="cannot be read: Is a directory"):
        read_instance(tmp_path)
    with pytest.raises(InstanceError, match=r"no instance file, expected at least one of \*.txt"):
        list(read_instances(tmp_path))


def test_folder_is_read_in_natural_order_and_other_files_ignored(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("ta10.txt", "ta2.jsp", "sub/ta3.TXT"):
        (tmp_path / name).write_text("1 1\n0 5\n")
    (tmp_path / "bounds.csv").write_text("instance,lower_bound\n")
    (tmp_path / "README.md").write_text("# about\n")
    assert [instance.name for instance in read_instances(tmp_path)] == ["ta3", "ta2", "ta10"]


def test_one_instance_asked_of_a_file_of_two(tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text(COLLECTION)
    assert [instance.name for instance in read_instances(tmp_path / "two.txt")] == ["small", "other"]
    with pytest.raises(InstanceError, match=r"two\.txt: holds 2 instances, expected one"):
        read_instance(tmp_path / "two.txt")


def test_a_million_operations_are_read_and_their_errors_located(tmp_path: Path) -> None:
    instance = recirculating(np.random.default_rng(0), jobs=8000, machines=100, name="big")
    assert instance.operations > 980_000
    text = format_instance(instance, "standard")
    (tmp_path / "big.txt").write_text(text)
    assert read_instance(tmp_path / "big.txt") == instance
    (tmp_path / "big.txt").write_text(text.rstrip() + "0000000000000000000x\n")
    with pytest.raises(InstanceError, match=r"big.txt:8001: field job 7999 value \d+: '\d+x', expected an integer"):
        read_instance(tmp_path / "big.txt")
