"""The header of a safetensors file on disk."""

from __future__ import annotations

import os
from typing import BinaryIO

from masksmith_wire.headers import PREFIX_BYTES, Header, HeaderError, header_length, parse_header


def read_header(file: BinaryIO) -> Header:
    """Read the header of an open file and check that the file has the size it promises.

    Raises:
        HeaderError: If it is no safetensors file, or truncated.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    # A local file may be as large as it likes; its header cannot be larger than the file.
    length = header_length(file.read(PREFIX_BYTES), limit=max(2, size))
    text = file.read(length)
    if len(text) < length:
        raise HeaderError(f"file is truncated: its header claims {length} bytes, {len(text)} are there")
    return parse_header(text, size)
