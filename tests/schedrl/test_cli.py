"""The command line as people and scripts meet it: output, exit codes, one-line errors, speed of --help."""

from __future__ import annotations

import csv
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import schedrl.cli as cli
from schedrl.cli.names import find_instance, find_schedulers, pick
from schedrl.envs.jobshop.solution import Schedule
from schedrl.errors import InstanceError, UnknownNameError
from schedrl.families import get_family

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("families", "generate", "solve", "validate", "compare", "train", "export", "inspect", "bench")


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def schedrl(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    def run(*arguments: object) -> Done:
        code = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


def assert_one_line_error(done: Done, *fragments: str) -> None:
    assert done.code == 2
    assert done.err.startswith("error: ") and done.err.count("\n") == 1, done.err
    for fragment in fragments:
        assert fragment in done.err


def test_help_answers_within_half_a_second() -> None:
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "schedrl", "--help"], cwd=ROOT, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # Processor time, and the best of several: what the command costs, not what else the machine is doing.
    assert min(seconds() for _ in range(5)) < 0.5


def test_help_lists_every_command_and_exit_code(schedrl: Callable[..., Done]) -> None:
    done = schedrl("--help")
    assert done.code == 0
    for command in COMMANDS:
        assert f" {command} " in done.out
    for code in cli.EXIT_CODES:
        assert f" {code}: " in done.out
    assert schedrl().out == done.out


def test_readme_documents_the_same_exit_codes() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for code, meaning in cli.EXIT_CODES.items():
        assert f"| {code} | {meaning.split(';')[0]}" in readme


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_and_json(command: str, schedrl: Callable[..., Done]) -> None:
    done = schedrl(command, "--help")
    assert done.code == 0
    assert f"schedrl {command}" in done.out.partition("For example:")[2]
    assert "--json" in done.out


def test_families_lists_suites_generators_and_schedulers(schedrl: Callable[..., Done]) -> None:
    (family,) = schedrl("families", "jobshop", "--json").json["families"]
    assert family["objective"] == "makespan"
    suites = {suite["name"]: suite for suite in family["suites"]}
    assert suites["taillard"]["aliases"] == ["ta"] and "demo" in suites
    uniform = next(item for item in family["generators"] if item["name"] == "uniform")
    assert uniform["signature"] == "jobs=int machines=int low=1 high=99"
    schedulers = {item["name"]: item["information"] for item in family["schedulers"]}
    assert schedulers["jobshop/spt"] == "online" and schedulers["jobshop/cp-sat"] == "clairvoyant"
    table = schedrl("families").out
    assert "jobshop/spt-twkr" in table and "storer-wu-vaccari" in table


def test_generate_is_seeded_and_independent_of_the_count(schedrl: Callable[..., Done], tmp_path: Path) -> None:
    size = ("--set", "jobs=3", "--set", "machines=2", "--seed", 7)
    done = schedrl("generate", "jobshop", "-g", "uniform", *size, "--count", 3, "--out", tmp_path / "a", "--json")
    assert done.code == 0
    assert [Path(file).name for file in done.json["files"]] == [f"uniform-3x2-s7-000{k}.json" for k in range(3)]
    schedrl("generate", "jobshop", "-g", "uniform", *size, "--count", 1, "--out", tmp_path / "b")
    first = "uniform-3x2-s7-0000.json"
    assert (tmp_path / "a" / first).read_bytes() == (tmp_path / "b" / first).read_bytes()
    instances = [next(get_family("jobshop").read_instances(Path(file))) for file in done.json["files"]]
    assert len({instance.duration.tobytes() for instance in instances}) == 3
    assert [instance.name for instance in instances] == [Path(file).stem for file in done.json["files"]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "generator uniform needs --set jobs=... --set machines=..."),
        (["jobs=3"], "generator uniform needs --set machines=..."),
        (["jobs=3", "machines=x"], "--set machines: 'x' is not an integer"),
        (["jobs=3", "machins=2"], "unknown parameter 'machins' of generator uniform; did you mean machines?"),
        (["jobs"], "--set jobs: expected name=value"),
        (["jobs=3", "machines=0"], "machines: 0, expected at least 1"),
    ],
)
def test_generate_refuses_bad_settings(
    settings: list[str], message: str, schedrl: Callable[..., Done], tmp_path: Path
) -> None:
    flags = [word for setting in settings for word in ("--set", setting)]
    assert_one_line_error(schedrl("generate", "jobshop", "-g", "uniform", *flags, "--out", tmp_path), message)
    assert not list(tmp_path.iterdir())


def test_solve_writes_a_solution_that_validates(schedrl: Callable[..., Done], tmp_path: Path) -> None:
    solution, chart = tmp_path / "ft06.json", tmp_path / "ft06.html"
    done = schedrl("solve", "jobshop", "cp-sat", "ft06", "--out", solution, "--gantt", chart, "--json")
    report = done.json
    assert (done.code, report["checked"], report["violations"]) == (0, True, [])
    assert (report["objective"], report["lower_bound"], report["gap"]) == (55, 55, 0)  # Fisher and Thompson 1963
    assert (report["best_known"], report["best_known_is_optimal"]) == (55, True)
    assert "makespan 55" in chart.read_text(encoding="utf-8")
    valid = schedrl("validate", "jobshop", "ft06", solution, "--json")
    assert valid.code == 0
    assert valid.json["valid"] and valid.json["objectives"]["makespan"] == 55


def test_solve_prints_objective_bound_gap_and_verdict(schedrl: Callable[..., Done]) -> None:
    done = schedrl("solve", "jobshop", "jobshop/spt", "fisher-thompson/ft06")
    assert done.code == 0
    lines = dict(line.split("  ", 1) for line in done.out.splitlines())
    assert lines["scheduler"].strip() == "jobshop/spt (online)"
    assert lines["checked"].strip() == "valid"
    makespan = int(lines["makespan"])
    assert 55 <= makespan <= 120
    assert lines["gap to optimal"].strip() == f"{100 * (makespan - 55) / 55:.2f} %"


def test_validate_names_every_violation(schedrl: Callable[..., Done], tmp_path: Path) -> None:
    family = get_family("jobshop")
    instance = find_instance(family, "ft06").instance
    zeros = Schedule(start_time=np.zeros(36, dtype=np.int64))
    path = tmp_path / "zeros.json"
    path.write_text(zeros.to_json(), encoding="utf-8")
    done = schedrl("validate", "jobshop", "ft06", path, "--json")
    assert (done.code, done.json["valid"], done.json["objectives"]) == (1, False, {})
    assert done.json["violations"] == family.check(instance, zeros)
    shown = schedrl("validate", "jobshop", "ft06", path)
    assert shown.code == 1
    assert shown.out.splitlines() == ["INVALID", *(f"  {violation}" for violation in done.json["violations"])]
    assert schedrl("validate", "jobshop", "ft10", path).code == 1


def test_compare_writes_its_files_and_resumes(schedrl: Callable[..., Done], tmp_path: Path) -> None:
    shops, out = tmp_path / "shops", tmp_path / "out"
    schedrl("generate", "jobshop", "-g", "uniform", "--set", "jobs=4", "--set", "machines=3", "-n", 3, "-o", shops)
    arguments = ("compare", "jobshop", "--suite", shops, "--schedulers", "spt,jobshop/mwkr", "--out", out)
    done = schedrl(*arguments, "--json")
    assert done.code == 0, done.err
    with (out / "results.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["objective"] == "makespan"]
    assert len(rows) == 6 and {row["checked"] for row in rows} == {"True"}
    assert {item["name"] for item in done.json["schedulers"]} == {"jobshop/spt", "jobshop/mwkr"}
    assert done.json["failed"] == 0
    assert Path(done.json["files"]["summary"]).is_file()
    before = (out / "results.csv").read_bytes()
    again = schedrl(*arguments)
    assert again.code == 0 and "mwkr" in again.out
    assert (out / "results.csv").read_bytes() == before


def test_compare_takes_several_suites_and_says_which_a_row_is_from(
    schedrl: Callable[..., Done], tmp_path: Path
) -> None:
    shops, out = tmp_path / "shops", tmp_path / "out"
    schedrl("generate", "jobshop", "-g", "uniform", "--set", "jobs=4", "--set", "machines=3", "-n", 2, "-o", shops)
    done = schedrl("compare", "jobshop", "--suite", f"ft,{shops}", "--schedulers", "spt", "--out", out, "--json")
    assert done.code == 0, done.err
    assert done.json["suite"] == "fisher-thompson,shops"
    with (out / "results.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["objective"] == "makespan"]
    assert sorted((row["suite"], row["instance"].partition("-")[0]) for row in rows) == [
        ("fisher-thompson", "ft06"),
        ("fisher-thompson", "ft10"),
        ("fisher-thompson", "ft20"),
        ("shops", "uniform"),
        ("shops", "uniform"),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("families", "jobshp"), "unknown family 'jobshp'; did you mean jobshop?"),
        (("solve", "jobshop", "spt-twk", "ft06"), "unknown scheduler 'spt-twk'; did you mean spt-twkr"),
        (("solve", "jobshop", "ppo@my.schedrl", "ft06"), "my.schedrl: no such bundle"),
        (("solve", "jobshop", "spt", "ft66"), "unknown instance 'ft66'; did you mean"),
        (("solve", "jobshop", "spt", "ft/ft07"), "unknown instance 'ft07' of suite ft; did you mean"),
        (("solve", "jobshop", "spt", "nowhere/shop.txt"), "nowhere/shop.txt: no such file"),
        (("solve", "jobshop", "spt", "ft06", "--time-limit", "0"), "--time-limit"),
        (("solve", "jobshop", "spt"), "Missing argument"),
        (("validate", "jobshop", "ft06", "nowhere.json"), "nowhere.json: No such file or directory"),
        (("compare", "jobshop", "--suite", "tailard", "--schedulers", "spt", "--out", "x"), "did you mean taillard"),
        (("compare", "jobshop", "--suite", "ft", "--schedulers", ",", "--out", "x"), "no scheduler given"),
        (("generate", "jobshop", "-g", "unifrm"), "unknown generator 'unifrm'; did you mean uniform?"),
        (("train", "jobshop", "--config", "nowhere.yaml"), "nowhere.yaml: no such file"),
        (("train", "jobshop"), "needs --config FILE, or --resume FOLDER"),
        (("export", "nowhere", "--out", "x.schedrl"), "nowhere: no such run folder"),
        (("inspect", "nowhere.schedrl"), "nowhere.schedrl: no such file"),
        (("bench", "jobshp"), "unknown family 'jobshp'"),
        (("frobnicate",), "No such command 'frobnicate'"),
    ],
)
def test_user_errors_are_one_line(
    arguments: tuple[str, ...],
    message: str,
    schedrl: Callable[..., Done],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_one_line_error(schedrl(*arguments), message)
    if arguments[0] in COMMANDS:
        done = schedrl(*arguments, "--json")
        assert done.code == 2
        assert message in done.json["error"]


def test_malformed_instance_and_solution_files_are_one_line(schedrl: Callable[..., Done], tmp_path: Path) -> None:
    shop = tmp_path / "shop.txt"
    shop.write_text("2 2\n0 3 1 2\n0 3 7 2\n", encoding="utf-8")
    assert_one_line_error(schedrl("solve", "jobshop", "spt", shop), "shop.txt:3")
    binary = tmp_path / "solution.json"
    binary.write_bytes(b"\xff\xfe\x00")
    assert_one_line_error(schedrl("validate", "jobshop", "ft06", binary), "solution.json: not UTF-8 text")
    bundle = tmp_path / "broken.schedrl"
    bundle.write_bytes(b"PK\x03\x04 not a zip")
    assert_one_line_error(schedrl("inspect", bundle), "broken.schedrl")


TINY = """
family: jobshop
total_decisions: 1000
environments: 8
group_size: 8
instances: [{generator: uniform, size: {jobs: 3, machines: 2}}]
validation: {every_decisions: 500, count: 2, instances: [{generator: uniform, size: {jobs: 3, machines: 2}}]}
network: {node_width: 8, layers: 1, candidate_width: 8}
"""


def test_train_export_inspect_and_play(schedrl: Callable[..., Done], tmp_path: Path) -> None:
    for module in ("torch_geometric", "sb3_contrib", "onnxscript", "onnxruntime"):
        pytest.importorskip(module)
    config, run, bundle = tmp_path / "tiny.yaml", tmp_path / "run", tmp_path / "tiny.schedrl"
    config.write_text(TINY, encoding="utf-8")
    train = ("train", "jobshop", "--config", config, "--out", run)
    assert_one_line_error(schedrl(*train, "--set", "ppo.clipp=1"), "tiny.yaml: field ppo.clipp")
    trained = schedrl(*train, "--seed", 3, "--set", "ppo.clip=0.1", "--json")
    assert trained.code == 0, trained.err
    assert trained.json["seed"] == 3 and trained.json["decisions"] >= 1000
    assert_one_line_error(schedrl(*train), "already holds a run")
    assert schedrl("train", "jobshop", "--resume", run, "--json").json["decisions"] == trained.json["decisions"]
    exported = schedrl("export", run, "--out", bundle, "--json")
    assert exported.code == 0, exported.err
    manifest = schedrl("inspect", bundle, "--json").json["manifest"]
    assert manifest["family"] == "jobshop" and manifest["provenance"]["config"]["ppo"]["clip"] == 0.1
    assert "provenance.config.ppo.clip" in schedrl("inspect", bundle).out
    played = schedrl("solve", "jobshop", f"ppo@{bundle}", "ft06", "--json").json
    assert played["checked"] and played["scheduler"] == f"jobshop/ppo@{bundle}" and played["objective"] >= 55


def test_inspect_shows_instances(schedrl: Callable[..., Done], tmp_path: Path) -> None:
    path = tmp_path / "shop.txt"
    path.write_text("2 2\n0 3 1 2\n1 4 0 1\n", encoding="utf-8")
    family = ("--family", "jobshop")
    (row,) = schedrl("inspect", path, *family, "--json").json["instances"]
    assert row["name"] == "shop" and row["longest-job bound"] == 5
    assert "shop" in schedrl("inspect", path, *family).out
    assert_one_line_error(schedrl("inspect", path), "not a bundle; name the family of its instances with --family")


def test_internal_errors_are_distinct(schedrl: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr("schedrl.cli.names.find_family", broken)
    done = schedrl("families", "jobshop", "--json")
    assert done.code == 3
    assert done.json == {"error": "internal error: ZeroDivisionError: boom"}
    assert "Traceback" in done.err


def test_missing_optional_module_names_its_extra(schedrl: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("schedrl.cli.names.find_family", missing)
    assert_one_line_error(schedrl("families", "jobshop"), "this needs the module torch: pip install 'schedrl[train]'")


def test_interrupt_has_its_own_code(schedrl: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("schedrl.cli.names.find_family", interrupted)
    done = schedrl("families", "jobshop")
    assert (done.code, done.err) == (130, "error: interrupted\n")


def test_a_closed_pipe_is_quiet() -> None:
    command = f"{sys.executable} -m schedrl families | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) in [(0, ""), (141, "")]  # head may have read everything
    assert done.stdout.startswith("jobshop: ")


def test_pick_lists_short_choices_and_close_matches() -> None:
    assert pick("suite", "a", ["a", "b"]) == "a"
    with pytest.raises(UnknownNameError, match="unknown suite 'zzz'; choose from alpha, beta"):
        pick("suite", "zzz", ["beta", "alpha"])
    with pytest.raises(UnknownNameError, match="there are 30, such as n00"):
        pick("suite", "zzz", [f"n{k:02d}" for k in range(30)])


def test_find_schedulers_accepts_both_forms() -> None:
    specs = find_schedulers(get_family("jobshop"), ["spt", " jobshop/mwkr "])
    assert [spec.name for spec in specs] == ["jobshop/spt", "jobshop/mwkr"]


def test_find_schedulers_takes_a_bundle_where_one_fits(tmp_path: Path) -> None:
    bundle = tmp_path / "my.schedrl"
    bundle.touch()
    (spec,) = find_schedulers(get_family("jobshop"), [f"ppo@{bundle}"])
    assert spec.name == f"jobshop/ppo@{bundle}"
    with pytest.raises(UnknownNameError, match="jobshop/spt plays no exported policy"):
        find_schedulers(get_family("jobshop"), [f"spt@{bundle}"])


def test_a_file_of_several_instances_asks_which(tmp_path: Path) -> None:
    family = get_family("jobshop")
    folder = tmp_path / "many"
    folder.mkdir()
    (folder / "one.txt").write_text("1 1\n0 3\n", encoding="utf-8")
    (folder / ".hidden").write_text("no instance", encoding="utf-8")
    assert find_instance(family, str(folder / "one.txt")).instance.name == "one"
    with pytest.raises(UnknownNameError, match=r"unknown instance 'two' of .*one.txt; choose from one"):
        find_instance(family, f"{folder / 'one.txt'}#two")
    with pytest.raises(InstanceError, match="no instance found"):
        from schedrl.cli.names import read_entries

        (tmp_path / "none").mkdir()
        read_entries(family, tmp_path / "none")
