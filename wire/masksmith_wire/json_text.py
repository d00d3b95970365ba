"""Parses untrusted JSON: repeated members, of which `json.loads` uses the last one, and deep nesting are refused."""

from __future__ import annotations

import json
from typing import Any


class DuplicateMemberError(ValueError):
    """An object of a JSON text has a member twice.

    Attributes:
        name: The member.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"the member {name[:200]!r} is given twice in one object; give it once")
        self.name = name


def parse_json(text: bytes | str) -> Any:
    """Parse a JSON text; bytes are UTF-8.

    Raises:
        DuplicateMemberError: If an object has a member twice.
        ValueError: If it is not JSON or not UTF-8, or its arrays and objects are nested too deeply for Python.
    """
    decoded = text if isinstance(text, str) else text.decode("utf-8-sig")
    try:
        return json.loads(decoded, object_pairs_hook=unique_members)
    except RecursionError:
        raise ValueError("its arrays and objects are nested too deeply") from None


def unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members of an object, for `json.loads(object_pairs_hook=...)`.

    Raises:
        DuplicateMemberError: If the object has a member twice.
    """
    members = dict(pairs)
    if len(members) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise DuplicateMemberError(name)
            seen.add(name)
    return members
