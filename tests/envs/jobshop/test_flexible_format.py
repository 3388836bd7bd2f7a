"""Flexible job shops are read and written, the base of machines is told, every broken file gives one line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.envs.jobshop.flexible_format import (
    format_flexible,
    parse_flexible,
    read_flexible,
    read_shops,
    write_flexible,
)
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.shop import ShopInstance
from schedrl.envs.jobshop.shop_generators import SHOP_GENERATORS, flexible
from schedrl.envs.jobshop.suites import load_instance
from schedrl.errors import ConfigError, InstanceError

SMALL = ShopInstance(
    name="small",
    machines=3,
    job_offset=np.array([0, 2, 3], dtype=np.int32),
    mode_offset=np.array([0, 1, 3, 6], dtype=np.int32),
    machine=np.array([2, 0, 1, 0, 1, 2], dtype=np.int32),
    duration=np.array([5, 4, 0, 1, 2, 3]),
)
FROM_0 = "2 3\n2 1 2 5 2 0 4 1 0\n1 3 0 1 1 2 2 3\n"
FROM_1 = "2 3 2.00\n2 1 3 5 2 1 4 2 0\n1 3 1 1 2 2 3 3\n"


def parse(text: str, first_machine: int | None = None) -> ShopInstance:
    return parse_flexible(text, source="f.fjs", name="small", first_machine=first_machine)


@pytest.mark.parametrize(
    "text",
    [
        FROM_0,
        FROM_1,
        FROM_1.replace("2.00", "2"),
        FROM_1.replace("2.00", "2.").replace("\n", "  \r\n\r\n"),
        FROM_0.replace(" ", "\t").rstrip(),
        "# two jobs\n" + FROM_0.replace("\n", " # row\n"),
    ],
)
def test_every_layout_of_the_same_shop(text: str) -> None:
    assert parse(text) == SMALL


def test_base_is_told_by_machine_0_or_m_and_asked_for_otherwise() -> None:
    assert parse("1 3\n1 1 0 5").machine.tolist() == [0]
    assert parse("1 3\n1 1 3 5").machine.tolist() == [2]
    message = "f.fjs:2: field machine: neither 0 nor 3 occurs, expected option first_machine to say 0 or 1"
    with pytest.raises(InstanceError, match=re.escape(message)):
        parse("1 3\n1 2 1 5 2 5")
    assert parse("1 3\n1 2 1 5 2 5", first_machine=0).machine.tolist() == [1, 2]
    assert parse("1 3\n1 2 1 5 2 5", first_machine=1).machine.tolist() == [0, 1]


def test_other_base_is_refused() -> None:
    with pytest.raises(ConfigError, match="option first_machine: 2, expected 0 or 1"):
        parse(FROM_0, first_machine=2)
    with pytest.raises(ConfigError, match="option first_machine: 2, expected 0 or 1"):
        format_flexible(SMALL, first_machine=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f.fjs: empty file, expected flexible job-shop text"),
        ("# nothing\n\n", "f.fjs: empty file, expected flexible job-shop text"),
        ("2\n", "f.fjs:1: field header: 1 values, expected 'jobs machines [mean alternatives]'"),
        ("1 3 2 4\n1 1 0 5", "f.fjs:1: field header: 4 values"),
        ("1 3 x\n1 1 0 5", "f.fjs:1: field mean alternatives: 'x', expected a number"),
        ("0 3\n", "f.fjs:1: field jobs: '0', expected an integer from 1 to"),
        ("1 -3\n1 1 0 5", "f.fjs:1: field machines: '-3', expected an integer from 1 to"),
        ("2 3\n1 1 0 5\n", "f.fjs:2: field jobs: 1 rows, expected 2 as in the header"),
        ("1 3\n1 1 0 5\n\n1 1 0 5\n", "f.fjs:4: field jobs: 2 rows, expected 1 as in the header"),
        ("1 3\n1 1 0", "f.fjs:2: field job 0 operation 0 time: the row ends after 3 values, expected more"),
        ("1 3\n2 1 0 5", "f.fjs:2: field job 0 operation 1 alternatives: the row ends after 4 values"),
        ("1 3\n1 2 0 5", "f.fjs:2: field job 0 operation 0 machine: the row ends after 4 values"),
        ("1 3\n1 1 0 5 7 8", "f.fjs:2: field job 0: 2 values after the last of 1 operations, expected none"),
        ("1 3\n0", "f.fjs:2: field job 0 operations: '0', expected an integer from 1 to"),
        ("1 3\n1 0", "f.fjs:2: field job 0 operation 0 alternatives: '0', expected an integer from 1 to 3"),
        ("1 3\n1 4 0 1 1 1 2 1 3 1", "f.fjs:2: field job 0 operation 0 alternatives: '4', expected an integer from"),
        ("1 3\n1 1 4 5", "f.fjs:2: field job 0 operation 0 machine: '4', expected an integer from 0 to 3"),
        ("2 3\n1 1 0 5\n2 1 1 4 1 3 5", "f.fjs:3: field job 1 operation 1 machine: 3, expected 0 to 2, counted from 0"),
        ("1 3\n1 2 1 5 1 6", "f.fjs:2: field job 0 operation 0 machine: 1 named twice, expected each machine once"),
        ("1 3\n1 1 0 -5", "f.fjs:2: field job 0 operation 0 time: '-5', expected an integer from 0 to"),
        ("1 3\n1 1 0 5.5", "f.fjs:2: field job 0 operation 0 time: '5.5', expected an integer from 0 to"),
        ("1 3\n1 1 0 1_0", "f.fjs:2: field job 0 operation 0 time: '1_0', expected an integer"),
        ("1 3\n1 1 0 99999999999999999999", "operation 0 time: '99999999999999999999', expected an integer"),
        ("1 1\n3 1 0 4503599627370496 1 0 4503599627370496 1 0 4503599627370496", "f.fjs:1: small: field duration"),
    ],
)
def test_broken_text_gives_one_line(text: str, message: str) -> None:
    with pytest.raises(InstanceError, match=re.escape(message)) as error:
        parse(text)
    assert "\n" not in str(error.value)


def test_machine_0_is_refused_where_machines_count_from_1() -> None:
    with pytest.raises(InstanceError, match="field job 0 operation 1 machine: 0, expected 1 to 3, counted from 1"):
        parse(FROM_0, first_machine=1)


def test_writes_the_originals_base_and_mean_alternatives(tmp_path: Path) -> None:
    assert format_flexible(SMALL) == FROM_1
    assert format_flexible(SMALL, first_machine=0) == FROM_0.replace("2 3", "2 3 2.00", 1)
    path = tmp_path / "small.fjs"
    write_flexible(SMALL, path)
    assert path.read_text() == FROM_1
    assert read_flexible(path) == SMALL
    assert list(tmp_path.iterdir()) == [path]


@given(
    jobs=st.integers(1, 5),
    machines=st.integers(1, 5),
    seed=st.integers(0, 2**32),
    first_machine=st.sampled_from([0, 1]),
)
def test_written_text_reads_back_equal(jobs: int, machines: int, seed: int, first_machine: int) -> None:
    shop = flexible(np.random.default_rng(seed), jobs=jobs, machines=machines, name="small")
    assert parse(format_flexible(shop, first_machine=first_machine), first_machine) == shop


@pytest.mark.parametrize(
    ("generator", "field"), [("setups", "setup_family"), ("blocking", "blocking"), ("dynamic", "release")]
)
def test_what_the_text_cannot_hold_is_refused(generator: str, field: str) -> None:
    shop = SHOP_GENERATORS[generator](np.random.default_rng(0), jobs=4, machines=3)
    with pytest.raises(InstanceError, match=rf"field {field}: .fjs text cannot hold it, write JSON instead"):
        format_flexible(shop)


def test_two_modes_on_one_machine_are_refused() -> None:
    index = np.array([0, 1], dtype=np.int32)
    shop = ShopInstance(
        name="s",
        machines=1,
        job_offset=index,
        mode_offset=np.array([0, 2], dtype=np.int32),
        machine=np.zeros(2, dtype=np.int32),
        duration=np.array([3, 4]),
    )
    with pytest.raises(InstanceError, match="field machine: an operation has two modes on one machine"):
        format_flexible(shop)


def test_unreadable_and_unwritable_paths(tmp_path: Path) -> None:
    with pytest.raises(InstanceError, match=r"missing\.fjs: cannot be read: No such file"):
        read_flexible(tmp_path / "missing.fjs")
    (tmp_path / "latin.fjs").write_bytes(b"1 1\n\xff")
    with pytest.raises(InstanceError, match=r"latin\.fjs:2: not UTF-8 text"):
        read_flexible(tmp_path / "latin.fjs")
    (tmp_path / "file").write_text("")
    with pytest.raises(InstanceError, match="cannot be written"):
        write_flexible(SMALL, tmp_path / "file" / "small.fjs")


def read_one(path: Path, text: str) -> ShopInstance:
    path.write_text(text)
    (shop,) = read_shops(path)
    return shop


def test_content_tells_the_format(tmp_path: Path) -> None:
    ft06 = load_instance("ft06")
    rows = zip(ft06.machine.reshape(6, 6), ft06.duration.reshape(6, 6), strict=True)
    standard = "6 6\n" + "\n".join(" ".join(f"{m} {d}" for m, d in zip(*row, strict=True)) for row in rows) + "\n"
    blocking = ShopInstance.from_job_shop(ft06, blocking="swap")
    assert read_one(tmp_path / "ft06.txt", standard) == ShopInstance.from_job_shop(ft06)
    assert read_one(tmp_path / "ft06.json", ft06.to_json()) == ShopInstance.from_job_shop(ft06)
    assert read_one(tmp_path / "shop.json", blocking.to_json()) == blocking
    assert read_one(tmp_path / "small.txt", FROM_0) == SMALL
    assert read_one(tmp_path / "small.dat", FROM_1) == SMALL
    terminated = read_one(tmp_path / "other.txt", "2 2\n0 3 1 2 -1 -1\n1 4 0 0 -1 -1\n")
    assert terminated.duration.tolist() == [3, 2, 4, 0]
    taillard = read_one(tmp_path / "t.txt", "2 2\nTimes\n3 2\n4 0\nMachines\n1 2\n2 1\n")
    assert (taillard.name, taillard.machine.tolist()) == ("t", [0, 1, 1, 0])


def test_text_that_is_both_asks_for_a_suffix(tmp_path: Path) -> None:
    both = "1 2\n1 1 1 5\n"
    with pytest.raises(InstanceError, match=r"reads as classical and as flexible job shop, expected suffix .jsp or"):
        read_one(tmp_path / "both.txt", both)
    assert read_one(tmp_path / "both.jsp", both).duration.tolist() == [1, 5]
    with pytest.raises(InstanceError, match="neither 0 nor 2 occurs"):
        read_one(tmp_path / "both.fjs", both)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.fjs", "1 3\n1 1 0", "x.fjs:2: field job 0 operation 0 time: the row ends"),
        ("x.txt", "2 3\n1 1 0 5\n1 1 4 5\n", "x.txt:3: field job 1 operation 0 machine: '4', expected"),
        ("x.txt", "2 2\n0 3 1\n1 4 0 0\n", "x.txt:2: field job 0: 3 values, expected pairs"),
        ("x.txt", "2 2\n0 1.5 1 2\n1 4 0 0\n", "x.txt:2: field job 0 value 2: '1.5', expected an integer"),
        ("x.txt", "hello\n", "x.txt:1: no known format"),
        ("x.txt", "", "x.txt: empty file"),
        ("x.json", "{", "x.json:1: not valid JSON"),
        ("x.json", '{"schema": "schedrl/shop-instance/1"}', "x.json: field name: missing"),
        ("x.json", '{"schema": "schedrl/shop-instance/2"}', "x.json: field schema: expected"),
    ],
)
def test_broken_files_name_file_and_place(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(InstanceError, match=re.escape(message)):
        read_one(tmp_path / name, text)


def test_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 2):
        (tmp_path / f"mk{number}.fjs").write_text(FROM_1)
    (tmp_path / "notes.md").write_text("no shop")
    assert [shop.name for shop in read_shops(tmp_path)] == ["mk2", "mk10"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InstanceError, match=r"empty: no instance file, expected at least one of \*.txt"):
        list(read_shops(tmp_path / "empty"))


def test_any_job_shop_is_a_flexible_one() -> None:
    shop = ShopInstance.from_job_shop(JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 4)]], name="small", machines=2))
    assert parse(format_flexible(shop)) == shop
