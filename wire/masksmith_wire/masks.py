"""Masks files: packed masks, eight entries of the weight's last axis per byte, the first in the lowest bit.

A masks file is a safetensors file with one U8 tensor per weight, of shape `[*shape[:-1], ceil(shape[-1] / 8)]`, whose
unused bits are 0. An unpacked masks file has BOOL tensors of the weights' shapes instead. The metadata member
`masksmith` is JSON: name -> {shape, pattern, ragged, axis, axes, out_parts, digests}. `pattern`, `ragged` and `axis`
are the attributes of the pattern; `axes` and `out_parts` are those of the layout: the role of each dimension of the
tensor, and the numbers of rows of its fused parts. `axes` and `out_parts` are omitted for one matrix `[out, in]`, or a
convolution, that is solved as a whole. `digests` has, in order, [number of rows, BLAKE3 of their packed bits] for each
run of rows along the first dimension: each shard is a run, or the whole mask is the only run. `digests` is omitted if
the mask has none. In an unpacked file, too, the digests are of the packed bits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, NonNegativeInt

from masksmith.layouts import Layout
from masksmith.patterns import Pattern

from .digests import PartDigest, digest_bytes, digest_violation
from .headers import build_header
from .json_text import parse_json

METADATA_KEY = "masksmith"


class MaskInfo(BaseModel):
    """Properties of a mask that its packed bits do not contain."""

    shape: list[NonNegativeInt]
    pattern: str
    ragged: str = "pad"
    axis: str = "in"
    axes: str | None = None
    out_parts: list[int] = []
    digests: list[PartDigest] = []
    """Number of rows (along the first dimension) and BLAKE3 of the packed bits of each run of rows, in order."""

    @classmethod
    def of(cls, shape: Sequence[int], pattern: Pattern, layout: Layout | None) -> MaskInfo:
        """Describe a mask; the layout is omitted for one matrix `[out, in]`, or a convolution, solved as a whole."""
        members: dict[str, Any] = {}
        if layout is not None and not layout.is_plain(pattern, shape):
            members = {"axes": str(layout), "out_parts": list(layout.out_parts)}
        return cls(shape=list(shape), pattern=str(pattern), ragged=pattern.ragged, axis=pattern.axis, **members)

    def members(self) -> dict[str, Any]:
        """Return the mask's metadata; members without meaning for this mask are omitted."""
        unused = {"axes", "out_parts"} if self.axes is None else set[str]()
        return self.model_dump(exclude=unused if self.digests else unused | {"digests"})

    def with_digest(self, packed: npt.NDArray[np.uint8]) -> MaskInfo:
        """Add the digest of the packed bits of the whole mask; an empty mask has none."""
        digests = [(self.shape[0], digest_bytes(np.ascontiguousarray(packed).data))] if packed.size else []
        return self.model_copy(update={"digests": digests})

    def digest_violation(self, name: str, packed: npt.NDArray[np.uint8]) -> str | None:
        """Describe why the digests do not prove the packed bits; None if all match, or there are no digests.

        The reason is a shape without rows, a wrong number of bytes, digests that do not cover the rows, or the first
        run that does not match.
        """
        if not self.digests:
            return None
        wanted = packed_bytes(tuple(self.shape)) if len(self.shape) > 1 else 0
        if wanted == 0:
            return f"{name!r} has digests of rows, and its shape {self.shape} has no rows"
        if packed.size != wanted:
            return f"the packed mask of {name!r} has {packed.size} bytes, and its shape {self.shape} needs {wanted}"
        rows = packed.reshape(self.shape[0], -1)
        return digest_violation(name, len(rows), self.digests, lambda first, last: rows[first:last].tobytes())

    @property
    def layout(self) -> Layout | None:
        """How the tensor is made of matrices; None for one matrix `[out, in]`, or a convolution, solved as a whole.

        Raises:
            LayoutError: If the axes do not describe a stack of matrices.
        """
        return None if self.axes is None else Layout.parse(self.axes, out_parts=self.out_parts)


def pack(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Pack a bool mask along its last axis: eight entries per byte, the first entry in the lowest bit."""
    return np.packbits(mask, axis=-1, bitorder="little")


def unpack(packed: npt.NDArray[np.uint8], shape: Iterable[int]) -> npt.NDArray[np.bool_]:
    """Unpack the mask of a weight of this shape; the inverse of `pack`."""
    lengths = tuple(shape)
    rows = packed.reshape(*lengths[:-1], packed_width(lengths))
    bits = np.unpackbits(rows, axis=-1, count=lengths[-1], bitorder="little")
    return bits.view(np.bool_)


def masked_bytes(data: bytes | memoryview, packed: npt.NDArray[np.uint8], item_bytes: int, cols: int) -> memoryview:
    """Return rows of a weight with zeros in the dropped entries.

    Args:
        data: Bytes of the rows; overwritten if the buffer is writable.
        packed: Packed mask of the rows, of any shape.
        item_bytes: Bytes of an entry.
        cols: Entries of a row along the last axis.
    """
    values: npt.NDArray[Any] = np.frombuffer(data, f"<u{item_bytes}").reshape(-1, cols)
    output = values if values.flags.writeable else None
    masked: npt.NDArray[Any] = np.multiply(values, unpack(packed, values.shape), out=output)
    return masked.data.cast("B")


def packed_width(shape: tuple[int, ...]) -> int:
    """Bytes per packed row along the last axis."""
    return -(-shape[-1] // 8)


def packed_bytes(shape: tuple[int, ...]) -> int:
    """Size of a packed mask in bytes."""
    return math.prod(shape[:-1]) * packed_width(shape)


def file_header(infos: Mapping[str, MaskInfo], *, as_bool: bool = False) -> bytes:
    """Build the beginning of a masks file: the length of the header, and the header.

    The masks follow in the order of `infos`.

    Args:
        infos: Properties of each mask.
        as_bool: Store one byte per entry (dtype BOOL, the weight's own shape) instead of one bit.
    """
    shapes = {
        name: info.shape if as_bool else [*info.shape[:-1], packed_width(tuple(info.shape))]
        for name, info in infos.items()
    }
    metadata = {METADATA_KEY: json.dumps({name: info.members() for name, info in infos.items()})}
    return build_header({name: ("BOOL" if as_bool else "U8", shape) for name, shape in shapes.items()}, metadata)


def read_infos(metadata: Mapping[str, str]) -> dict[str, MaskInfo]:
    """Read the properties of each mask from a file's metadata.

    Raises:
        DuplicateMemberError: If a mask, or a property of one, is listed twice.
        ValueError: If the metadata is not that of a masks file, or is malformed.
    """
    if METADATA_KEY not in metadata:
        raise ValueError("not a masks file: its metadata lacks the member 'masksmith'")
    members = parse_json(metadata[METADATA_KEY])
    if not isinstance(members, dict):
        raise ValueError("not a masks file: its metadata member 'masksmith' is not a map")
    return {str(name): MaskInfo.model_validate(value) for name, value in members.items()}
