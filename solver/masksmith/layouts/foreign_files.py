"""Recognizes what a file is by its first bytes where it is not what it should be, so that messages say what to do."""

from __future__ import annotations

import codecs
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
    (re.compile(rb"\x93NUMPY"), "an array of numpy; convert it to safetensors first"),
    (re.compile(rb"\x08[\x01-\x1f]\x12"), "an ONNX model; convert the model that it was exported from"),
    (re.compile(rb"\x1f\x8b"), "compressed with gzip; decompress it first"),
    (re.compile(rb"\x28\xb5\x2f\xfd|\xfd7zXZ|BZh\d"), "compressed (zstd, xz or bzip2); decompress it first"),
    (re.compile(rb"(?:\.git)?/annex/objects/"), "a git-annex pointer instead of the file itself: run 'git annex get'"),
    (re.compile(rb"# xet version"), "a Xet pointer instead of the file itself: download it again with huggingface_hub"),
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
    beginning = beginning.removeprefix(codecs.BOM_UTF8)
    return next((text for form, text in _FORMATS if form.match(beginning)), None) or _plain_text(beginning)


def not_json_reason(content: bytes) -> str:
    """Say why a file that should be JSON is not: what it is instead, if that shows, and what to do.

    Args:
        content: The file, or at least its first bytes.
    """
    beginning = content[:BEGINNING_BYTES].removeprefix(codecs.BOM_UTF8)
    is_damaged = beginning.lstrip()[:1] in (b"{", b"[")
    text = None if is_damaged else foreign_format(beginning)
    return "not JSON; download it again" if text is None else f"not JSON: it is {text}"


def _plain_text(beginning: bytes) -> str | None:
    """Quote the first line of a file that seems to be text, such as the message of a server; None for other bytes."""
    text = beginning.decode(errors="ignore")  # The last character may be cut.
    if len(text.encode()) < len(beginning) - 3 or not all(each.isprintable() or each.isspace() for each in text):
        return None
    first_line = text.strip().partition("\n")[0]
    return f"text, which begins with {first_line!r}; download it again"
