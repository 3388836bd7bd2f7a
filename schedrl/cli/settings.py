"""``--set name=value``: values for the parameters of a generator or the fields of a configuration."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from schedrl.cli.names import pick
from schedrl.errors import ConfigError

__all__ = ["Parameter", "convert", "keyword_values", "parameters_of", "plain_values", "split_setting"]

Parameter = tuple[str, Any, Any]  # name, type, default (inspect.Parameter.empty if required)


def split_setting(text: str) -> tuple[str, str]:
    """Split ``name=value``.

    Raises:
        ConfigError: there is no name or no equals sign.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"--set {text}: expected name=value")
    return name.strip(), value.strip()


def parameters_of(function: Callable[..., Any]) -> list[Parameter]:
    """Return the keyword parameters of a function after its first one (the random generator)."""
    hints = typing.get_type_hints(function)
    listed = list(inspect.signature(function).parameters.values())[1:]
    keyword = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [(item.name, hints.get(item.name, Any), item.default) for item in listed if item.kind in keyword]


def keyword_values(settings: Iterable[str], parameters: Iterable[Parameter], owner: str) -> dict[str, Any]:
    """Turn ``name=value`` texts into keyword arguments of the types the parameters declare.

    Raises:
        ConfigError: a value of the wrong type, or a required parameter without a value.
        UnknownNameError: no such parameter.
    """
    known: Mapping[str, Parameter] = {item[0]: item for item in parameters}
    values: dict[str, Any] = {}
    for setting in settings:
        name, text = split_setting(setting)
        pick("parameter", name, known, of=owner)
        values[name] = convert(known[name][1], text, f"--set {name}")
    missing = [name for name, _, default in known.values() if default is inspect.Parameter.empty and name not in values]
    if missing:
        raise ConfigError(f"{owner} needs {' '.join(f'--set {name}=...' for name in missing)}")
    return values


def plain_values(settings: Iterable[str]) -> dict[str, Any]:
    """Turn ``part.name=value`` texts into a mapping whose values are read as YAML.

    Raises:
        ConfigError: not ``name=value``, or the value is no YAML.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, text = split_setting(setting)
        try:
            values[name] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"--set {name}: {text!r} is not a YAML value") from None
    return values


def convert(hint: Any, text: str, where: str) -> Any:
    """Read a value of type ``hint`` from text: bool, int, float, str, Literal, X | None, tuple or list.

    Raises:
        ConfigError: the text is no such value.
    """
    try:
        return _convert(hint, text)
    except (ValueError, TypeError, yaml.YAMLError):
        raise ConfigError(f"{where}: {text!r} is not {_describe(hint)}") from None


def _convert(hint: Any, text: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _first_that_fits(get_args(hint), text)
    if origin is Literal:
        return _one_of(get_args(hint), text)
    if origin in (tuple, list):
        return _sequence(hint, text)
    if hint is bool:
        return _one_of((True, False), text.capitalize())
    if hint is types.NoneType:
        return _one_of((None,), text.capitalize())
    if hint in (int, float, str):
        return hint(text)
    return yaml.safe_load(text)


def _one_of(values: tuple[Any, ...], text: str) -> Any:
    for value in values:
        if str(value) == text:
            return value
    raise ValueError(text)


def _first_that_fits(hints: tuple[Any, ...], text: str) -> Any:
    # None first, and str last, because every text is a str.
    for hint in sorted(hints, key=lambda item: (item is not types.NoneType, item is str)):
        try:
            return _convert(hint, text)
        except (ValueError, TypeError):
            continue
    raise ValueError(text)


def _sequence(hint: Any, text: str) -> Any:
    inner = get_args(hint)
    parts = [part.strip() for part in text.strip("()[]").split(",") if part.strip()]
    repeated = get_origin(hint) is list or (len(inner) == 2 and inner[1] is Ellipsis)
    kinds = [inner[0]] * len(parts) if repeated else list(inner)
    values = [_convert(kind, part) for kind, part in zip(kinds, parts, strict=True)]
    return values if get_origin(hint) is list else tuple(values)


def _describe(hint: Any) -> str:
    names = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    return names.get(hint, str(hint).replace("typing.", ""))
