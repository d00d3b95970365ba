"""Reads the identity of an output from its marker or record; others may write these files, so their sizes are limited.

Neither is parsed as a whole if it is large: parsed JSON takes up to 30 times the memory of its text.
"""

from __future__ import annotations

import json
import re

MAX_MARKER_BYTES = 2**16
"""Maximum size of a marker that is read; the marker of an unfinished output is its journal, the file `JOURNAL_NAME`."""
MAX_RECORD_BYTES = 2**27
"""Maximum size of a record that is read; the record of a finished output is its file `RECORD_NAME`."""
_IDENTITY = re.compile(rb'"identity":\s*"([0-9a-f]{64})"')
"""The member `identity` of a record: the identity of the output."""


def marker_identity(data: bytes) -> object:
    """Return the member `identity` of the JSON object at the start of a marker; None if there is none."""
    try:
        document = json.JSONDecoder().raw_decode(data.decode(errors="replace"))[0]
    except (ValueError, RecursionError):
        return None
    return document.get("identity") if isinstance(document, dict) else None


def record_identity(data: bytes) -> str | None:
    """Return the identity in a record, which is searched and not parsed; None if there is none."""
    match = _IDENTITY.search(data)
    return None if match is None else match[1].decode()
