from __future__ import annotations

from pathlib import Path

import pytest

from schedrl.atomic import replacing, write_text


def test_a_failed_write_keeps_the_old_file_and_leaves_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.txt"
    write_text(path, "old\n")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old\n"
    assert [item.name for item in path.parent.iterdir()] == ["a.txt"]


def test_newlines_are_written_as_they_are(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "a\nb\r\n")
    assert (tmp_path / "a.txt").read_bytes() == b"a\nb\r\n"
