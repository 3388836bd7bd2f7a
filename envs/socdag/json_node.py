"""A place in a JSON document that knows its path, so that every complaint names file and field."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from schedrl.errors import InstanceError

__all__ = ["JsonNode", "load_json"]


class JsonNode:
    """A value of a JSON document that knows where in the document it is.

    Attributes:
        value: What ``json`` made of it, None for a member that is missing.
        source: The file, the start of every error message.
    """

    __slots__ = ("_key", "_parent", "source", "value")

    def __init__(self, value: Any, source: str, parent: JsonNode | None = None, key: str | int = "") -> None:
        self.value = value
        self.source = source
        self._parent = parent
        self._key = key

    @property
    def path(self) -> str:
        """Way from the top of the document to here, such as ``jobs[3].name``."""
        # Put together only when somebody asks: large documents have a million nodes.
        if self._parent is None:
            return ""
        before = self._parent.path
        if isinstance(self._key, int):
            return f"{before}[{self._key}]"
        return f"{before}.{self._key}" if before else self._key

    def fail(self, expected: str) -> NoReturn:
        """Complain about this value.

        Raises:
            InstanceError: always, naming file, field and value.
        """
        shown = "nothing" if self.value is None else f"{self.value!r:.40}"
        raise InstanceError(f"{self.source}: field {self.path or '(top level)'}: got {shown}, expected {expected}")

    def get(self, name: str) -> JsonNode:
        """Return a member of this table; its value is None where there is none.

        Raises:
            InstanceError: this is no table.
        """
        if not isinstance(self.value, dict):
            self.fail("a table of fields")
        return JsonNode(self.value.get(name), self.source, self, name)

    def members(self, *, optional: bool = False) -> list[JsonNode]:
        """Return the members of this list; nothing counts as an empty one where it is ``optional``.

        Raises:
            InstanceError: this is no list.
        """
        if optional and self.value is None:
            return []
        if not isinstance(self.value, list):
            self.fail("a list")
        return [JsonNode(item, self.source, self, index) for index, item in enumerate(self.value)]

    def texts(self) -> list[str]:
        """Return the strings of this list, none where there is nothing.

        Raises:
            InstanceError: this is no list, or not all of its members are strings.
        """
        if self.value is None:
            return []
        if not isinstance(self.value, list) or not all(isinstance(item, str) for item in self.value):
            for node in self.members():
                node.text()
        return list(self.value)

    def text(self) -> str:
        """Return this string.

        Raises:
            InstanceError: this is no string, or an empty one.
        """
        if not isinstance(self.value, str) or not self.value:
            self.fail("a name")
        return self.value

    def number(self, default: float | None = None) -> float:
        """Return this finite number of 0 or more, or the default where there is nothing.

        Raises:
            InstanceError: this is no such number.
        """
        if self.value is None and default is not None:
            return default
        if not isinstance(self.value, (int, float)) or isinstance(self.value, bool):
            self.fail("a number of 0 or more")
        try:
            number = float(self.value)
        except OverflowError:
            number = math.inf
        if not (math.isfinite(number) and number >= 0):
            self.fail("a finite number of 0 or more")
        return number

    def integer(self, low: int, high: int) -> int:
        """Return this integer.

        Raises:
            InstanceError: this is no integer from low to high.
        """
        if type(self.value) is not int or not low <= self.value <= high:
            self.fail(f"an integer from {low} to {high}")
        return self.value


def load_json(text: str, source: str) -> JsonNode:
    """Parse a JSON text.

    Raises:
        InstanceError: it is not JSON, with the line where it breaks off.
    """
    try:
        return JsonNode(json.loads(text), source)
    except RecursionError:
        raise InstanceError(f"{source}: not valid JSON: nested too deeply") from None
    except ValueError as error:
        raise InstanceError(f"{source}:{getattr(error, 'lineno', 1)}: not valid JSON: {error}") from None
