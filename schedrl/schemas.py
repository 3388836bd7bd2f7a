"""JSON texts of several kinds, told apart by the schema that each names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["AnyOf", "kind_of"]


def kind_of(text: str, kinds: Mapping[str, Any], source: str, error_type: type[Exception]) -> Any:
    """Return the class whose schema a text names, among ``kinds`` by schema; ``source`` begins error messages.

    Raises:
        error_type: not JSON, or another schema.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise error_type(f"{source}: not valid JSON: {error}") from None
    schema = data.get("schema") if isinstance(data, dict) else None
    if not isinstance(schema, str) or schema not in kinds:
        raise error_type(f"{source}: field schema: expected one of {', '.join(kinds)}, got {schema!r:.60}")
    return kinds[schema]


class AnyOf:
    """Reads what several classes write as JSON, each by its ``from_json``.

    Args:
        kinds: Classes by the schema that their texts name.
        error_type: What is raised for other texts.
    """

    def __init__(self, kinds: Mapping[str, Any], error_type: type[Exception]) -> None:
        self._kinds, self._error_type = kinds, error_type

    def from_json(self, text: str, *, source: str = "<json>") -> Any:
        """Read a text by the class whose schema it names; ``source`` begins error messages.

        Raises:
            Exception: of the error type given; not JSON, another schema, or a bad field.
        """
        return kind_of(text, self._kinds, source, self._error_type).from_json(text, source=source)
