from __future__ import annotations

from pathlib import Path

import pytest

from schedrl.errors import ConfigError
from schedrl.plotting.files import interactive, save_picture

SVG = '<svg xmlns="http://www.w3.org/2000/svg"></svg>'


def no_figure() -> None:
    raise AssertionError("matplotlib is for bitmaps only")


def save(path: Path, script: str = "") -> str:
    save_picture(path, title="a <b>", svg=lambda: SVG, figure=no_figure, script=script)  # type: ignore[arg-type]  # never returns
    return path.read_text(encoding="utf-8")


def test_pages_and_drawings_need_no_matplotlib(tmp_path: Path) -> None:
    assert save(tmp_path / "new" / "p.svg") == SVG
    page = save(tmp_path / "p.html", "run()")
    assert page.startswith("<!doctype html>") and "<title>a &lt;b&gt;</title>" in page
    assert "<svg></svg></figure><script>run()</script></body>" in page
    assert "<script>" not in interactive(SVG)


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"p\.pdf: suffix '\.pdf' is not a picture format; expected \.png, \.svg or"):
        save(tmp_path / "p.pdf")
