"""Checks the header of a safetensors file against the bounds of tensors."""

from __future__ import annotations

import math

from masksmith_service.errors import RequestError
from masksmith_service.settings import Settings
from masksmith_wire.errors import Code
from masksmith_wire.headers import MAX_NAME_LENGTH, Header


def check_header(header: Header, settings: Settings) -> None:
    """Check the number of tensors, their names and their sizes.

    Raises:
        RequestError: If there are too many, or one has too long a name or too many entries.
    """
    if len(header.tensors) > settings.max_tensors:
        detail = f"the file holds {len(header.tensors)} tensors, max_tensors is {settings.max_tensors}"
        raise RequestError(Code.TOO_MANY_TENSORS, detail, limit=settings.max_tensors)
    longest = max(header.tensors, key=len, default="")
    if len(longest) > MAX_NAME_LENGTH:
        detail = f"tensor {longest[:40]!r}... has a name of {len(longest)} characters, not up to {MAX_NAME_LENGTH}"
        raise RequestError(Code.INVALID_SAFETENSORS, detail, limit=MAX_NAME_LENGTH)
    for name, entry in header.tensors.items():
        count = math.prod(entry.shape)
        if count > settings.max_elements:
            detail = f"tensor {name[:200]!r} has {count} entries, max_elements is {settings.max_elements}; split it"
            raise RequestError(Code.TOO_MANY_ELEMENTS, detail, tensor=name[:200], limit=settings.max_elements)
