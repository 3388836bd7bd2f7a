"""JSON texts of several kinds, told apart by the schema that each names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["kind_of"]


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
