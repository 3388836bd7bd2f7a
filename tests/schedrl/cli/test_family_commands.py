"""Commands that families add."""

from __future__ import annotations

import sys
from typing import Annotated

import pytest
import typer

from schedrl import cli, families
from schedrl.cli.family_commands import family_group
from schedrl.envs import jobshop, socdag
from schedrl.errors import ConfigError


def greet(name: Annotated[str, typer.Argument()], loud: bool = False) -> None:
    """Greet someone.

    Raises:
        ConfigError: nobody is called so.
    """
    if name == "nobody":
        raise ConfigError("nobody is called nobody")
    print(f"hello {name}{'!' if loud else ''}")


@pytest.fixture
def greeting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socdag, "COMMANDS", {"greet": f"{__name__}:greet"}, raising=False)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[greet.__module__])


@pytest.mark.usefixtures("greeting")
def test_a_command_of_a_family_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["socdag", "greet", "Ada", "--loud"]) == 0
    assert capsys.readouterr().out == "hello Ada!\n"


@pytest.mark.usefixtures("greeting")
def test_help_lists_the_commands_of_a_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["socdag", "--help"]) == 0
    out = capsys.readouterr().out
    assert "greet" in out and "Greet someone." in out and "schedrl socdag" in out


@pytest.mark.usefixtures("greeting")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["socdag", "greet", "nobody"], "error: nobody is called nobody\n"),
        (["socdag", "gret", "Ada"], "error: No such command 'gret'"),
        (["socdag", "greet"], "error: Missing argument"),
    ],
)
def test_errors_take_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith(message) and err.count("\n") == 1


def test_a_family_without_commands_says_so() -> None:
    assert not hasattr(jobshop, "COMMANDS")
    with pytest.raises(ConfigError, match="family jobshop adds no commands of its own"):
        family_group("jobshop")


def test_a_word_that_is_no_family_is_left_to_the_top_level(capsys: pytest.CaptureFixture[str]) -> None:
    assert family_group("greet") is None
    assert cli.main(["greet"]) == 2
    assert "No such command 'greet'" in capsys.readouterr().err
    assert "greet" not in families.family_names()
