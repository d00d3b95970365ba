"""How clients of the broker decode its replies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DECODING: Mapping[str, Any] = {"decode_responses": True, "encoding_errors": "backslashreplace"}
"""Options of clients: bytes of replies that are not UTF-8 become escapes, so that a damaged value is read as a wrong
text, and not as a failure of the connection."""
