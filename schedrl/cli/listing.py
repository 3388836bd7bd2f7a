"""``schedrl families`` and ``schedrl generate``: what there is, and more of it."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from schedrl.cli.arguments import FamilyName, JsonFlag, Seed
from schedrl.cli.console import emit_json, print_table

__all__ = ["families", "generate"]


def families(
    name: Annotated[str, typer.Argument(help="One family; all if omitted.", show_default=False)] = "",
    as_json: JsonFlag = False,
) -> None:
    """List families with their suites, generators and schedulers.

    For example:

        schedrl families

        schedrl families jobshop --json
    """
    from schedrl.cli.names import find_family
    from schedrl.families import family_names

    listed = [_describe(find_family(item)) for item in ([name] if name else family_names())]
    if as_json:
        emit_json({"families": listed})
        return
    for family in listed:
        print(f"{family['name']}: {family['title']}, minimises {family['objective']}")
        columns = ("name", "aliases", "summary", "source")
        print_table("Suites", columns, _columns(family["suites"], *columns))
        print_table("Generators", ("name", "parameters"), _columns(family["generators"], "name", "signature"))
        columns = ("name", "information", "summary", "source")
        print_table("Schedulers", columns, _columns(family["schedulers"], *columns))


def _columns(items: list[dict[str, Any]], *keys: str) -> list[list[str]]:
    return [[_text(item[key]) for key in keys] for item in items]


def _text(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def _describe(family: Any) -> dict[str, Any]:
    from schedrl.schedulers import schedulers_of

    return {
        "name": family.name,
        "title": family.title,
        "objective": family.objective,
        "suites": _describe_suites(family),
        "generators": [_describe_generator(*item) for item in family.generators.items()],
        "schedulers": [
            {
                "name": spec.name,
                "information": spec.information,
                "randomised": spec.randomised,
                "summary": spec.summary,
                "source": spec.source,
            }
            for spec in schedulers_of(family.name).values()
        ],
    }


def _describe_suites(family: Any) -> list[dict[str, Any]]:
    known: dict[str, dict[str, Any]] = {}
    for alias, suite in family.suites.items():
        entry = known.setdefault(
            suite.name, {"name": suite.name, "aliases": [], "summary": suite.summary, "source": suite.source}
        )
        if alias != suite.name:
            entry["aliases"].append(alias)
    return list(known.values())


def _describe_generator(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    parameters = [
        {
            "name": parameter,
            "type": _type_name(hint),
            "required": default is inspect.Parameter.empty,
            "default": None if default is inspect.Parameter.empty else default,
        }
        for parameter, hint, default in _sizes(function)
    ]
    summary = (inspect.getdoc(function) or "").partition("\n")[0]
    words = [f"{item['name']}={item['type'] if item['required'] else item['default']}" for item in parameters]
    return {"name": name, "summary": summary, "signature": " ".join(words), "parameters": parameters}


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _sizes(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    from schedrl.cli.settings import parameters_of

    # The command names instances after their files.
    return [parameter for parameter in parameters_of(function) if parameter[0] != "name"]


def generate(
    family: FamilyName,
    generator: Annotated[str, typer.Option("--generator", "-g", help="Generator, see: schedrl families.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Parameter as name=value; repeat for several.", metavar="NAME=VALUE"),
    ] = None,
    seed: Seed = 0,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Number of instances.")] = 1,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the JSON files.")] = Path("instances"),
    as_json: JsonFlag = False,
) -> None:
    """Write seeded random instances as JSON files; the same seed writes the same files.

    Instance k of seed s is the same whatever the count. Leave out --set to be told which parameters there are.

    For example:

        schedrl generate jobshop -g uniform --set jobs=10 --set machines=5 -n 20
    """
    import numpy as np

    from schedrl.atomic import write_text
    from schedrl.cli.names import find_family, pick
    from schedrl.cli.settings import keyword_values

    found = find_family(family)
    make = found.generators[pick("generator", generator, found.generators)]
    size = keyword_values(settings or [], _sizes(make), f"generator {generator}")
    paths = []
    for index in range(count):
        instance: Any = make(np.random.default_rng([seed, index]), **size)
        name = f"{instance.name}-s{seed}-{index:04d}"
        path = out / f"{name}.json"
        write_text(path, dataclasses.replace(instance, name=name).to_json())
        paths.append(str(path))
    if as_json:
        emit_json({"family": family, "generator": generator, "seed": seed, "parameters": size, "files": paths})
    else:
        print(f"wrote {count} instance{'s' if count > 1 else ''}: {paths[0]}{f' to {paths[-1]}' if count > 1 else ''}")
