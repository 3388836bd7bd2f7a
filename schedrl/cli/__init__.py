"""The ``schedrl`` command: families, generate, solve, validate, explain, compare, train, export, inspect, bench.

Families may add commands of their own, see ``schedrl.cli.family_commands``; ``schedrl devices`` is
a group of its own.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.main import get_command

from schedrl.cli.comparing import compare
from schedrl.cli.console import fail, one_line
from schedrl.cli.devices import devices
from schedrl.cli.family_commands import family_group
from schedrl.cli.inspection import inspect
from schedrl.cli.listing import families, generate
from schedrl.cli.runs import bench, export, train
from schedrl.cli.solving import explain, solve, validate
from schedrl.errors import SchedrlError

__all__ = ["EXIT_CODES", "app", "main"]

EXIT_CODES = {
    0: "done, and every check passed",
    1: "a check failed: invalid solution, no solution, or failed rows in a comparison or bench",
    2: "bad usage or bad input; one line on stderr says what and where",
    3: "internal error, with a traceback: please report it",
    130: "interrupted",
    141: "the reader of stdout went away",
}

_EXTRA_OF = {
    "torch": "train",
    "torch_geometric": "train",
    "stable_baselines3": "train",
    "sb3_contrib": "train",
    "tensorboard": "train",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "matplotlib": "plot",
}

_COMMANDS: tuple[Callable[..., None], ...] = (
    families,
    generate,
    solve,
    validate,
    explain,
    compare,
    train,
    export,
    inspect,
    bench,
)

app = typer.Typer(
    name="schedrl",
    help=(
        "Reinforcement learning and classical methods for scheduling, side by side.\n\n"
        "Start with `schedrl families`. Every command takes --json and prints one JSON object on stdout. "
        "`schedrl FAMILY --help` lists the commands that a family adds.\n\n"
        "Exit codes:\n\n" + "\n".join(f"- {code}: {meaning}" for code, meaning in EXIT_CODES.items())
    ),
    rich_markup_mode="markdown",
    add_completion=False,
)
for _command in _COMMANDS:
    app.command()(_command)
app.add_typer(devices, name="devices")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"schedrl {version('schedrl')}")
        except PackageNotFoundError:
            typer.echo("schedrl (source tree, not installed)")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code (see ``EXIT_CODES``)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    try:
        outcome: Any = _run(arguments)
        sys.stdout.flush()
        # The framework turns an interrupt into this exit code, and says nothing.
        return fail("interrupted", as_json, code=130) if outcome == 130 else outcome or 0
    except typer.TyperException as error:
        return fail(error.format_message(), as_json)
    except SchedrlError as error:
        return fail(str(error), as_json)
    except SystemExit:
        return 141  # the framework has silenced stdout: head or less has closed it
    except OSError as error:
        return fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), as_json)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and (extra := _EXTRA_OF.get(_top_module(error))):
            return fail(f"this needs the module {_top_module(error)}: pip install 'schedrl[{extra}]'", as_json)
        traceback.print_exc()
        return fail(f"internal error: {type(error).__name__}: {one_line(str(error))}", as_json, code=3)


def _run(arguments: list[str]) -> Any:
    first = arguments[0] if arguments else "-"
    known = first.startswith("-") or first in {"devices", *(command.__name__ for command in _COMMANDS)}
    # Families are imported only for a word that is no command of ours, so that --help stays fast.
    if not known and (group := family_group(first)) is not None:
        return group.main(arguments[1:], prog_name=f"schedrl {first}", standalone_mode=False)
    return get_command(app).main(arguments, prog_name="schedrl", standalone_mode=False)


def _top_module(error: ModuleNotFoundError) -> str:
    return (error.name or "").partition(".")[0]
