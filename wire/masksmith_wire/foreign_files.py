"""Recognizes other formats than safetensors by a file's first bytes, so that messages name them and say what to do."""

from __future__ import annotations

import re

BEGINNING_BYTES = 64
"""Bytes that are enough to recognize each format; for most formats the first eight are enough."""

_PICKLE = "a pickle, which can run code when it is loaded; convert it to safetensors"
_HTML = "an HTML page instead of the file, such as a login or an error page: download it again"

_FORMATS = (
    (re.compile(rb"\s*version"), "a Git LFS pointer instead of the file itself: run 'git lfs pull'"),
    (re.compile(rb"\s*<(?:!doc|html|head|body)", re.IGNORECASE), _HTML),
    (re.compile(rb"\s*<\?xml"), "an XML document instead of the file, such as a store's error: download it again"),
    (re.compile(rb"GGUF"), "a GGUF file, whose weights are quantised; convert it to safetensors first"),
    (re.compile(rb"PK\x03\x04"), "a zip archive, as torch.save writes them: " + _PICKLE),
    (re.compile(rb"\x80[\x02-\x05]"), _PICKLE),
    (re.compile(rb"\x89HDF"), "an HDF5 file; convert it to safetensors first"),
    (re.compile(rb"\x1f\x8b"), "compressed with gzip; decompress it first"),
    (re.compile(rb"\s*\{"), "JSON text, not weights"),
    (re.compile(rb"\x00{8}"), "empty at its beginning (zeros only), as an unfinished download is: download it again"),
)


def foreign_format(beginning: bytes) -> str | None:
    """Name the format of a file that is not safetensors, and say what to do about it; None if the format is unknown.

    The text continues a sentence that begins with `it is`.

    Args:
        beginning: First bytes of a file whose safetensors header has an invalid length.
    """
    if not beginning:
        return "empty; download it again"
    return next((text for form, text in _FORMATS if form.match(beginning)), None)
