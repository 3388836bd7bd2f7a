"""``schedrl FAMILY COMMAND``: commands that a family adds, imported only when the family is named.

A family's package may export ``COMMANDS: Mapping[str, str]``, from the name of a command to the ``module:function``
that carries it out, a function with typer's annotations like those of this package.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import typer
from typer.main import get_command

from schedrl.errors import ConfigError

__all__ = ["family_group"]


def family_group(name: str) -> Any | None:
    """Return the group of commands that a family adds, None if no family is called so.

    Raises:
        ConfigError: the family adds none.
    """
    from schedrl.families import family_names

    if name not in family_names():
        return None
    commands: Mapping[str, str] = getattr(importlib.import_module(f"schedrl.envs.{name}"), "COMMANDS", {})
    if not commands:
        raise ConfigError(f"family {name} adds no commands of its own; see schedrl --help and schedrl families {name}")
    return get_command(_app(name, commands))


def _app(family: str, commands: Mapping[str, str]) -> typer.Typer:
    app = typer.Typer(
        help=f"Commands that the family {family} adds; `schedrl families {family}` lists what else it has.",
        rich_markup_mode="markdown",
        add_completion=False,
        no_args_is_help=True,
    )
    app.callback()(lambda: None)  # with it a single command keeps its name
    for command, target in commands.items():
        module, _, function = target.partition(":")
        app.command(command)(getattr(importlib.import_module(module), function))
    return app
