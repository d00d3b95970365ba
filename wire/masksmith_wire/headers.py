"""Reads and writes safetensors headers; strict, because uploads are untrusted input.

Layout: u64 little-endian length, JSON header, data. The parser rejects duplicate names (which the safetensors library
accepts), gaps, overlaps, trailing bytes and wrong lengths.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from masksmith.layouts.foreign_files import BEGINNING_BYTES, foreign_format

from .json_text import DuplicateMemberError, unique_members

PREFIX_BYTES = 8
DEFAULT_MAX_HEADER_BYTES = 16 * 2**20
"""Default limit of the length of an upload's header."""
FORMAT_MAX_HEADER_BYTES = 100_000_000
"""Length of the longest header that the safetensors format itself allows."""
MAX_DIMENSIONS = 16
MAX_METADATA = 10_000
"""Number of members of `__metadata__` that an upload's header may have in addition to `max_tensors` tensors.

`check_members` has one limit for both together: a header with fewer tensors may have more members of `__metadata__`.
"""
MAX_NAME_LENGTH = 512
"""Limit of the number of characters of a tensor's name in an upload."""

DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


class HeaderError(ValueError):
    """The bytes are not a valid safetensors file; the message says where and why."""


class HeaderTooLargeError(HeaderError):
    """The header is within the limit of the format, but is longer, or has more members, than the reader allows."""


class UnknownDtypeError(HeaderError):
    """A tensor has a dtype that safetensors does not define."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a file; `start` and `stop` are byte offsets from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Header:
    """The tensors of a file by name (in the order of the header), its free-form metadata, and its size in bytes."""

    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str] = field(default_factory=dict)
    file_bytes: int = 0


def data_bytes(dtype: str, shape: Sequence[int]) -> int:
    """Size of a tensor's data in bytes; items of less than a byte are packed."""
    return -(-math.prod(shape) * DTYPE_BITS[dtype] // 8)


def build_header(tensors: Mapping[str, tuple[str, Sequence[int]]], metadata: Mapping[str, str] | None = None) -> bytes:
    """Build a file's length and header, for tensors of (dtype, shape) whose data is contiguous in this order."""
    document: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        end = offset + data_bytes(dtype, shape)
        document[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def header_length(beginning: bytes, limit: int = DEFAULT_MAX_HEADER_BYTES) -> int:
    """Read the length of the JSON header from a file's first eight bytes; more bytes improve the error messages.

    Raises:
        HeaderTooLargeError: If the length exceeds `limit`.
        HeaderError: If `beginning` is too short, or the length is less than 2 or exceeds the limit of the format.
    """
    if not beginning:
        raise HeaderError(f"not a safetensors file: 0 bytes, it is {foreign_format(beginning)}")
    if len(beginning) < PREFIX_BYTES:
        raise HeaderError(f"not a safetensors file: {len(beginning)} byte(s), the header's length alone takes 8")
    (length,) = struct.unpack("<Q", beginning[:PREFIX_BYTES])
    if 2 <= length <= limit:
        # The name of a tar archive's first member, such as `./`, reads as a small length, but no JSON follows.
        if beginning[PREFIX_BYTES : PREFIX_BYTES + 1] not in (b"", b"{"):
            _reject_other_formats(beginning)
        return int(length)
    _reject_other_formats(beginning)
    if limit < length <= FORMAT_MAX_HEADER_BYTES:
        _check_brace(beginning[PREFIX_BYTES:])
        raise HeaderTooLargeError(f"the header claims {length} bytes, max_header_bytes is {limit}")
    raise HeaderError(f"not a safetensors file: its header claims {length} bytes (allowed: 2 to {limit})")


def read_header_text(
    read: Callable[[int, int], bytes],
    file_bytes: int,
    limit: int = FORMAT_MAX_HEADER_BYTES,
    reserve: Callable[[int], None] | None = None,
) -> bytes:
    """Read the JSON header of a file by ranges, for `parse_header`.

    Args:
        read: Reads the bytes from a start to a stop (exclusive).
        file_bytes: Size of the file.
        limit: Limit of the header's length.
        reserve: Called with the header's length before the header is read; what it raises is passed on.

    Raises:
        HeaderTooLargeError: If the header is longer than `limit`.
        HeaderError: If the file does not begin with the length of a header, or ends before the header does.
    """
    beginning = read(0, min(BEGINNING_BYTES, file_bytes))
    end = PREFIX_BYTES + header_length(beginning, limit)
    if end > file_bytes:
        if not beginning.startswith(b"{", PREFIX_BYTES):
            _reject_other_formats(beginning)
        raise truncated_header(file_bytes, end)
    if reserve is not None:
        reserve(end - PREFIX_BYTES)
    return read(PREFIX_BYTES, end)


def truncated_header(file_bytes: int, end: int) -> HeaderError:
    """Error of a file that ends before its header, which would end at byte `end`."""
    return HeaderError(f"file is truncated: {file_bytes} bytes, the header alone takes {end}")


def parse_header(text: bytes, file_bytes: int | None = None) -> Header:
    """Parse the JSON header.

    Args:
        text: The JSON bytes, without the eight bytes of the length.
        file_bytes: Size of the whole file, if known; checked against the size that the header implies.

    Raises:
        UnknownDtypeError: If a dtype is unknown.
        HeaderError: If anything else is wrong.
    """
    document = _load(text)
    metadata = _metadata(document.pop("__metadata__", {}))
    base = PREFIX_BYTES + len(text)
    tensors = {name: _entry(name, value, base) for name, value in document.items()}
    expected_bytes = _check_coverage(tensors, base)
    if file_bytes is not None and file_bytes != expected_bytes:
        what = "truncated" if file_bytes < expected_bytes else "followed by bytes that belong to no tensor"
        raise HeaderError(f"file is {what}: {file_bytes} bytes, the header implies {expected_bytes}")
    return Header(tensors, metadata, expected_bytes)


def check_members(text: bytes, max_tensors: int) -> None:
    """Check, before an upload's header is parsed, how many strings, lists and objects it has.

    It may have as many as `max_tensors` tensors and `MAX_METADATA` members of `__metadata__` need.

    Raises:
        HeaderTooLargeError: If it has so many strings, lists or objects that parsing it would take too much memory.
    """
    unescaped = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    strings, lists = unescaped.count(b'"') // 2, unescaped.count(b"[") + unescaped.count(b"{")
    # A tensor has five strings (its name, three member names and its dtype), two lists and an object. `__metadata__`
    # has its name and two strings for each member. The header and `__metadata__` are two more objects. Brackets inside
    # strings are counted, too: MAX_METADATA of them are allowed.
    if strings > 5 * max_tensors + 2 * MAX_METADATA + 1 or lists > 3 * max_tensors + MAX_METADATA + 2:
        raise HeaderTooLargeError(
            f"the header has {strings} strings and {lists} lists or objects, which is more than {max_tensors} tensors "
            f"(max_tensors) and {MAX_METADATA} members of __metadata__ have"
        )


def read_header(file: BinaryIO) -> Header:
    """Read the header of an open file of any size, and check that the file has the size that the header implies.

    Raises:
        HeaderError: If it is not a safetensors file, or is truncated.
    """
    size = file.seek(0, os.SEEK_END)

    def read(start: int, stop: int) -> bytes:
        file.seek(start)
        return file.read(stop - start)

    return parse_header(read_header_text(read, size), size)


def _reject_other_formats(beginning: bytes) -> None:
    other_format = foreign_format(beginning)
    if other_format is not None:
        raise HeaderError(f"not a safetensors file: it is {other_format}")


def _check_brace(text: bytes) -> None:
    if text and not text.startswith(b"{"):
        raise HeaderError("not a safetensors file: the header does not begin with '{'")


def _load(text: bytes) -> dict[str, Any]:
    _check_brace(text)
    try:
        document = json.loads(text.decode("utf-8"), object_pairs_hook=_checked_members, parse_constant=_reject_constant)
    except HeaderError:
        raise
    except DuplicateMemberError as error:
        raise HeaderError(f"the header names {error.name[:200]!r} twice") from None
    except (ValueError, RecursionError) as error:
        raise HeaderError(f"not a safetensors file: the header is not JSON ({type(error).__name__})") from None
    return dict(document)


def _checked_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = unique_members(pairs)
    for name, value in pairs:
        if not (_is_text(name) and (not isinstance(value, str) or _is_text(value))):
            raise HeaderError(f"the header has an unpaired surrogate in or below {name[:200]!a}")
    return members


def _is_text(text: str) -> bool:
    # JSON escapes can denote unpaired surrogates, which UTF-8 cannot encode, so no response could contain the text.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _reject_constant(name: str) -> None:
    raise HeaderError(f"the header contains {name}, which is not JSON")


def _metadata(value: Any) -> dict[str, str]:
    if value is None:  # The safetensors library, too, reads null as no metadata.
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise HeaderError("the header's __metadata__ is not a map of strings")
    return value


def _entry(name: str, value: Any, base: int) -> TensorEntry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise HeaderError(f"tensor {name[:200]!r} needs exactly dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise UnknownDtypeError(f"tensor {name[:200]!r} has unknown dtype {str(dtype)[:40]!r}")
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise HeaderError(f"tensor {name[:200]!r} has a malformed shape {str(shape)[:80]}")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise HeaderError(f"tensor {name[:200]!r} has malformed data_offsets {str(offsets)[:80]}")
    needed = data_bytes(dtype, shape)
    if offsets[1] - offsets[0] != needed:
        raise HeaderError(f"tensor {name[:200]!r} spans {offsets[1] - offsets[0]} bytes, its shape needs {needed}")
    return TensorEntry(name, dtype, tuple(shape), base + offsets[0], base + offsets[1])


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _check_coverage(tensors: Mapping[str, TensorEntry], base: int) -> int:
    """Check that the tensors cover the data from byte `base` without gaps and overlaps; returns where the data ends."""
    end = base
    for entry in sorted(tensors.values(), key=lambda entry: (entry.start, entry.stop)):
        if entry.start != end:
            what = "overlaps its neighbour" if entry.start < end else "leaves a gap before it"
            raise HeaderError(f"tensor {entry.name[:200]!r} {what}: starts at byte {entry.start}, expected {end}")
        end = entry.stop
    return end
