"""Masks on the wire: one bit an entry, little-endian, along the weight's last axis.

A masks file is a safetensors file with one U8 tensor a weight, `[*shape[:-1], ceil(shape[-1] / 8)]`, unused bits 0;
its metadata member `masksmith` is JSON: name -> {shape, pattern, ragged, axis}.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from .headers import build_header

METADATA_KEY = "masksmith"


class MaskInfo(BaseModel):
    """What a packed mask cannot say by itself."""

    shape: list[int]
    pattern: str
    ragged: str = "pad"
    axis: str = "in"
    layout: str | None = None
    """Axes of the tensor, such as `stack in out`; without them, a weight `[out, in, *kernel]`."""
    out_parts: list[int] | None = None
    """Rows of the matrices that are fused along `out`."""


def pack(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Pack a bool mask along its last axis, eight entries a byte, first entry in the lowest bit."""
    return np.packbits(mask, axis=-1, bitorder="little")


def unpack(packed: npt.NDArray[np.uint8], shape: Iterable[int]) -> npt.NDArray[np.bool_]:
    """Undo `pack`; `shape` is the weight's."""
    full = tuple(shape)
    bits = np.unpackbits(packed.reshape(*full[:-1], packed_width(full)), axis=-1, count=full[-1], bitorder="little")
    return bits.view(np.bool_)


def packed_width(shape: tuple[int, ...]) -> int:
    """Bytes that one row along the last axis takes."""
    return -(-shape[-1] // 8)


def packed_bytes(shape: tuple[int, ...]) -> int:
    """Bytes of a packed mask."""
    return math.prod(shape[:-1]) * packed_width(shape)


def file_header(infos: Mapping[str, MaskInfo], *, as_bool: bool = False) -> bytes:
    """Build a masks file's length and header; the masks' bytes follow in the same order.

    Args:
        infos: What each mask is, in the order of the data.
        as_bool: One byte an entry (dtype BOOL, the weight's own shape) instead of one bit.
    """
    shapes = {
        name: info.shape if as_bool else [*info.shape[:-1], packed_width(tuple(info.shape))]
        for name, info in infos.items()
    }
    metadata = {METADATA_KEY: json.dumps({name: info.model_dump(exclude_none=True) for name, info in infos.items()})}
    return build_header({name: ("BOOL" if as_bool else "U8", shape) for name, shape in shapes.items()}, metadata)


def read_infos(metadata: Mapping[str, str]) -> dict[str, MaskInfo]:
    """Read what each mask is from a file's metadata.

    Raises:
        ValueError: If the metadata is not a masks file's.
    """
    if METADATA_KEY not in metadata:
        raise ValueError("not a masks file: its metadata lacks the member 'masksmith'")
    members = json.loads(metadata[METADATA_KEY])
    if not isinstance(members, dict):
        raise ValueError("not a masks file: its metadata member 'masksmith' is no map")
    return {str(name): MaskInfo.model_validate(value) for name, value in members.items()}
