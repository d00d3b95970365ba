"""Names the format of a file that is not safetensors or JSON as expected, by its first bytes, and says what to do."""

from __future__ import annotations

import codecs
import re

BEGINNING_BYTES = 264
"""Number of first bytes of a file that are enough to recognise every format; for most formats, eight are enough."""
TEXT_BYTES = 64
"""Number of first bytes by which a text is recognised; the error message quotes the first line of these bytes."""

_PICKLE = "a pickle, which can run code when it is loaded; convert it to safetensors"
_HTML = "an HTML page instead of the file, such as a login or an error page: download it again"

_CONFIG_MEMBERS = frozenset({"model_type", "architectures", "_class_name"})
"""Members by which the config of a model is recognised."""

CONFLICT = re.compile(rb"^<<<<<<< ", re.MULTILINE)
"""A line with which git begins a conflict."""

_FORMATS = (
    (
        re.compile(rb".{257}ustar", re.DOTALL),
        "a tar archive; extract it with 'tar -xf' and name a file or folder of it",
    ),
    # If only the first 8 bytes are known, where safetensors has the length of its header, they are `version ` alone.
    (re.compile(rb"\s*version (?:https?://|\Z)"), "a Git LFS pointer instead of the file itself: run 'git lfs pull'"),
    (re.compile(rb"\s*<(?:!doc|html|head|body)", re.IGNORECASE), _HTML),
    (re.compile(rb"\s*<\?xml"), "an XML document instead of the file, such as a store's error: download it again"),
    (re.compile(rb"GGUF"), "a GGUF file, whose weights are quantised; convert it to safetensors first"),
    (
        re.compile(rb"PK\x03\x04.{26}[^/]{1,30}\.npy", re.DOTALL),
        "an archive of numpy (.npz); convert it to safetensors first",
    ),
    (re.compile(rb"PK\x03\x04"), "a zip archive, as torch.save writes them: " + _PICKLE),
    (re.compile(rb"\x80[\x02-\x05]"), _PICKLE),
    (re.compile(rb"\x89HDF"), "an HDF5 file; convert it to safetensors first"),
    (re.compile(rb"\x93NUMPY"), "an array of numpy; convert it to safetensors first"),
    (
        re.compile(rb"lmgg|fmgg|tjgg"),
        "a GGML file, whose weights are quantised; convert the model that it was made from",
    ),
    (re.compile(rb".{4}TFL3", re.DOTALL), "a TensorFlow Lite model; convert the model that it was exported from"),
    (re.compile(rb"\x08[\x01-\x1f]\x12"), "an ONNX model; convert the model that it was exported from"),
    (re.compile(rb"\x1f\x8b"), "compressed with gzip; decompress it first"),
    (re.compile(rb"\x28\xb5\x2f\xfd|\xfd7zXZ|BZh\d"), "compressed (zstd, xz or bzip2); decompress it first"),
    (re.compile(rb"(?:\.git)?/annex/objects/"), "a git-annex pointer instead of the file itself: run 'git annex get'"),
    (re.compile(rb"# xet version"), "a Xet pointer instead of the file itself: download it again with huggingface_hub"),
    (re.compile(rb"\x89PNG"), "a picture (PNG) instead of the file: download it again"),
    (re.compile(rb"\x7fELF"), "a program or a library of Linux (ELF) instead of the file: download it again"),
    (
        CONFLICT,
        "in conflict: git wrote both versions into it; take one of them with 'git checkout --ours' or '--theirs'",
    ),
    (re.compile(rb"\s*\{"), "JSON text, not weights"),
    (re.compile(rb"\x00{8}"), "empty at its beginning (zeros only), as an unfinished download is: download it again"),
)
"""For each format, how a file begins, and a text that continues a sentence that begins with `it is`."""


def foreign_format(beginning: bytes) -> str | None:
    """Name the format of a file that is not of the expected format, and say what to do; None if it is unknown.

    The text continues a sentence that begins with `it is`.

    Args:
        beginning: The first bytes of the file; with fewer than `BEGINNING_BYTES`, fewer formats are recognised.
    """
    beginning = beginning.removeprefix(codecs.BOM_UTF8)
    if not beginning:
        return "empty; download it again"
    if beginning.isspace():
        return "blank, at least at its beginning; download it again"
    return next((text for regex, text in _FORMATS if regex.match(beginning)), None) or _plain_text(
        beginning[:TEXT_BYTES]
    )


def not_json_reason(content: bytes) -> str:
    """Return a message for a file that should be JSON and is not: its format, if the first bytes show it, and advice.

    The text continues a sentence that begins with `it is`.

    Args:
        content: The file, or at least its first bytes.
    """
    beginning = content[:BEGINNING_BYTES].removeprefix(codecs.BOM_UTF8)
    begins_as_json = beginning.lstrip()[:1] in (b"{", b"[")
    if begins_as_json and CONFLICT.search(content):
        beginning, begins_as_json = b"<<<<<<< ", False
    text = None if begins_as_json else foreign_format(beginning)
    return "not JSON; download it again" if text is None else f"not JSON: it is {text}"


def server_error_reason(document: object) -> str | None:
    """Quote the error of a server that was downloaded instead of a model's config; None if it is a config.

    The text continues a sentence that begins with `it is`.
    """
    if not isinstance(document, dict) or "error" not in document or document.keys() & _CONFIG_MEMBERS:
        return None
    return f"a server's error instead of the file: {str(document['error'])[:200]!r}; download it again"


def _plain_text(beginning: bytes) -> str | None:
    """Quote the first line of a file that seems to be text, such as the message of a server; None for other bytes."""
    # The last character may be cut off after up to 3 of its bytes, which are then ignored.
    text = beginning.decode(errors="ignore")
    if len(text.encode()) < len(beginning) - 3 or not all(each.isprintable() or each.isspace() for each in text):
        return None
    first_line = text.strip().partition("\n")[0]
    return f"text, which begins with {first_line!r}; download it again"
