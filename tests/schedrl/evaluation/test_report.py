from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from toy_family import CRASH, ENTRIES, FAMILY, LPT, RANDOM, SPT

from schedrl.evaluation import ComparisonOptions, compare
from schedrl.families import SuiteEntry

VOID = {"meta", "br", "link", "img", "input", "hr"}
LOADING = {"src", "href", "srcset", "data", "action", "poster", "xlink:href"}


class Page(HTMLParser):
    """Checks that tags nest, and collects links, visible text and tag counts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        self.links += [value or "" for name, value in attrs if name in LOADING]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.stack):
            self.text.append(data)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    options = ComparisonOptions(out=folder, suite="hand", time_limit_s=5.0, seeds=2)
    compare(FAMILY, ENTRIES, [SPT, LPT, RANDOM, CRASH], options)
    return folder


@pytest.fixture(scope="module")
def source(out: Path) -> str:
    return (out / "report.html").read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_loads_nothing(source: str) -> None:
    page = Page(source)
    assert page.stack == []
    assert page.links == []
    assert not re.search(r"https?://|@import|url\(", source)


def test_every_scheduler_is_shown_with_what_it_may_see(source: str) -> None:
    text = " ".join(Page(source).text)
    for name in ("spt", "lpt", "ppo-sample", "crash"):
        assert f"toy/{name}" in text
        assert f"the {name} rule" in text
    ranking = source[source.index("<h2>Ranking") : source.index("<h2>Mean gap")]
    assert ranking.count(">online<") == 1 and ranking.count(">clairvoyant<") == 3
    assert "Two kinds of scheduler are compared" in text


def test_figures_failures_and_provenance_are_there(source: str) -> None:
    page = Page(source)
    text = re.sub(r"\s+", " ", " ".join(page.text))
    assert "59.44" in text  # mean gap of longest first: (0.4 + 0.25 + 17 / 15) / 3
    assert "RuntimeError: no idea what to do" in text
    assert "2/3" in text  # solved by the crashing one
    assert ("svg", "schedrl-lines") in [(tag, attrs.get("class")) for tag, attrs in page.seen]
    for fact in ("command", "python", "numpy", "ortools", "cpu", "time limit", "seeds", "date"):
        assert f" {fact} " in text


def test_names_are_escaped(source: str) -> None:
    assert "c &lt;i&gt;" in source and "c <i>" not in source


def test_the_best_and_the_learned_solution_of_each_instance_are_drawn(out: Path, source: str) -> None:
    files = sorted(path.name for path in (out / "gantt").iterdir())
    assert "a__spt.svg" in files or "a__crash.svg" in files
    assert "a__ppo-sample.svg" in files
    charts = [attrs for tag, attrs in Page(source).seen if tag == "svg" and attrs.get("class") == "schedrl-gantt"]
    assert len(charts) == len(files) >= 3


def test_a_family_that_cannot_draw_still_gets_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    def fails(instance: object, solution: object, path: Path) -> None:
        raise RuntimeError("no pencil")

    compare(replace(FAMILY, render=fails), ENTRIES[:1], [SPT], ComparisonOptions(out=tmp_path))
    assert "not drawn: RuntimeError: no pencil" in (tmp_path / "report.html").read_text()


def test_further_pictures_stand_beside_the_solutions(tmp_path: Path) -> None:
    from dataclasses import replace

    seen: dict[str, list[str]] = {}

    def of_one(instance: object, solution: object, path: Path) -> None:
        path.write_text('<svg xmlns="http://www.w3.org/2000/svg" class="use"></svg>')

    def of_all(instance: SuiteEntry, solutions: dict[str, object], path: Path) -> None:
        seen[instance.name] = list(solutions)  # type: ignore[attr-defined]  # a toy instance
        if instance.name != "b":  # type: ignore[attr-defined]
            path.write_text('<svg xmlns="http://www.w3.org/2000/svg" class="spread"></svg>')

    def fails(instance: object, solution: object, path: Path) -> None:
        raise RuntimeError("no brush")

    family = replace(FAMILY, pictures={"Use of time": of_one, "broken": fails}, comparison_pictures={"spread": of_all})
    compare(family, ENTRIES, [SPT, LPT, RANDOM], ComparisonOptions(out=tmp_path))
    source = (tmp_path / "report.html").read_text()
    page = Page(source)
    text = re.sub(r"\s+", " ", " ".join(page.text))
    classes = [attrs.get("class") for tag, attrs in page.seen if tag == "svg"]
    gantts = classes.count("schedrl-gantt")
    assert page.stack == [] and gantts >= len(ENTRIES) and classes.count("use") == gantts
    # Shortest first is best; of instance b the comparison says nothing and leaves no trace.
    assert classes.count("spread") == len(ENTRIES) - 1
    assert set(seen["a"]) == {"spt", "lpt", "ppo-sample"} and set(seen) == {entry.instance.name for entry in ENTRIES}
    assert "Use of time: spt (best)" in text and "spread, schedulers compared" in text
    assert text.count("not drawn: RuntimeError: no brush") == gantts
    names = {path.name.split("__")[-1] for path in (tmp_path / "pictures").iterdir()}
    assert "spread.svg" in names and any(name.startswith("Use-of-time") for name in names)


def test_a_suite_without_any_reference_shows_values(tmp_path: Path) -> None:
    from dataclasses import replace

    entry = SuiteEntry(instance=ENTRIES[0].instance, lower_bound=None, best_known=None)
    compare(replace(FAMILY, bounds=lambda _: []), [entry], [SPT, LPT], ComparisonOptions(out=tmp_path))
    page = Page((tmp_path / "report.html").read_text())
    cells = [text.strip() for text in page.text]
    assert "10" in cells and "14" in cells
