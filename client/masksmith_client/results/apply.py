"""Apply masks to a model: write its tensors with zeros in the pruned entries, a piece at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from masksmith_client._errors import InputError
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.copy import is_folder_output, write_copy
from masksmith_client.checkpoints.other_files import model_files
from masksmith_client.checkpoints.quantised import check_zero_point
from masksmith_client.submission.files import list_tensors, streamed_tensors
from masksmith_client.submission.streamed_tensor import StreamedTensor, flat_shape
from masksmith_wire.headers import DTYPE_BITS, build_header

from .atomic_write import atomic_write
from .masks import Masks
from .tensor_file import row_ranges
from .tensor_file_names import check_tensor_file_name


@dataclass(frozen=True, slots=True)
class AppliedTensor:
    """A tensor of the output; `kept` is the number of entries kept, None if it was copied without a mask."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    kept: int | None

    @property
    def density(self) -> float | None:
        """Share of the entries kept, 0 if there are no entries; None without a mask."""
        return None if self.kept is None else self.kept / max(1, math.prod(self.shape))


def apply_masks(
    masks: Masks, model: Path, output: Path, on_bytes: Callable[[int], None] = lambda count: None
) -> list[AppliedTensor]:
    """Write a model with zeros in the pruned entries to one safetensors file, or to a directory.

    Dtypes are unchanged. Tensors are read in pieces; a mask is in memory as a whole only while it is checked, one mask
    at a time. A file is written atomically. A directory gets the same files as the model's directory; after an
    interruption, the same call continues.

    Args:
        masks: Masks by the names of the tensors; tensors without a mask are copied.
        model: A safetensors file, a sharded checkpoint's index, or the directory of either.
        output: The `.safetensors` file to write, which may be the only weights file of the model itself; or a
            directory: a new or empty one, or that of an interrupted copy.
        on_bytes: Called with the number of bytes processed since the last call.

    Returns:
        All tensors of the model's files.

    Raises:
        InputError: If the output's name has the suffix of another format; if the model has no tensor for a mask; if a
            mask and its tensor differ in shape; if entries of the tensor's dtype cannot be set to zero one by one; if
            the model is quantised so that zeros are not stored as zeros; if masks of tied weights differ; if
            `write_copy` refuses the directory; or if `output` is one of several files of the model.
        WireError: If a mask does not match its digests, or a downloaded mask violates its pattern. The patterns of an
            opened file are not checked here: `Masks.verify` and `masksmith verify` check them.
    """
    check_tensor_file_name(output)
    checkpoint = Checkpoint.open(model)
    _check_model_stays_whole(checkpoint, output)
    checkpoint.check_zeros_can_be_counted()
    tensors, mask_names = streamed_tensors(checkpoint.tensors_as_stored), _mask_names(masks, checkpoint)
    if is_folder_output(output, model):
        return _write_folder(checkpoint, tensors, masks, mask_names, output, on_bytes)
    with atomic_write(output) as file:
        header_entries = {tensor.name: (tensor.dtype, tensor.shape) for tensor in tensors}
        file.write(build_header(header_entries, checkpoint.metadata))
        return [_write(file, tensor, masks, mask_names.get(tensor.name), on_bytes) for tensor in tensors]


def _check_model_stays_whole(checkpoint: Checkpoint, output: Path) -> None:
    """Refuse to replace one file of a model by all its tensors, unless it is the only file of weights."""
    if not output.is_file():
        return
    replaceable = [*checkpoint.headers] if len(checkpoint.headers) == 1 else []
    for file in model_files(checkpoint):
        is_output = file.is_file() and output.samefile(file)
        if is_output and not any(output.samefile(other) for other in replaceable):
            raise InputError(f"{output} is one of the files of {checkpoint.path}; name another file, or a directory")


def _write_folder(
    checkpoint: Checkpoint,
    tensors: list[StreamedTensor],
    masks: Masks,
    mask_names: Mapping[str, str],
    output: Path,
    on_bytes: Callable[[int], None],
) -> list[AppliedTensor]:
    by_name = {tensor.name: tensor for tensor in tensors}

    def masked_values(name: str) -> Iterator[bytes | memoryview] | None:
        if name not in mask_names:
            return None
        return (piece for piece, _ in _masked_pieces(by_name[name], masks, mask_names[name]))

    write_copy(checkpoint, output, masked_values, masks.digest(), on_bytes)
    return [
        AppliedTensor(
            name, tensor.dtype, tensor.shape, _count_kept(masks, mask_names[name]) if name in mask_names else None
        )
        for name, tensor in by_name.items()
    ]


def model_bytes(model: Path, output: Path) -> int:
    """Return the sum of what `apply_masks` passes to `on_bytes`: sizes of files for a directory, else of tensors."""
    if is_folder_output(output, model):
        return sum(header.file_bytes for header in Checkpoint.open(model).headers.values())
    return sum(tensor.data_bytes for tensor in list_tensors(model))


def _mask_names(masks: Masks, checkpoint: Checkpoint) -> dict[str, str]:
    """Return the name of the mask of each stored tensor that is masked, by the tensor's name.

    Masks of tied weights must be equal. A tensor without a mask of its own gets that of a weight that it is tied to.
    """
    mask_of_tensor: dict[str, str] = {}
    for name in masks:
        tensor = checkpoint.find(name)
        if tensor is None:
            raise InputError(
                f"mask {name!r} has no tensor in {checkpoint.path}. Some libraries give weights other names in "
                f"files than in modules; masks that are solved from the file have the names in the file: masksmith "
                f"solve {checkpoint.path}"
            )
        if masks.shape(name) not in (tensor.shape, flat_shape(tensor.shape)):
            raise InputError(f"mask {name!r} has shape {list(masks.shape(name))}, the tensor has {list(tensor.shape)}")
        if DTYPE_BITS[tensor.dtype] % 8 or tensor.dtype == "F8_E8M0":
            raise InputError(f"{name!r} has dtype {tensor.dtype}, whose entries cannot be set to zero one by one")
        check_zero_point(tensor.name, checkpoint.tensors)
        for stored_name in (tensor.name, *checkpoint.tied_to(tensor.name)):
            other = mask_of_tensor.setdefault(stored_name, name)
            if other != name and not _are_equal(masks, other, name):
                raise InputError(
                    f"masks {other!r} and {name!r} differ, but both are for {stored_name!r}, a tied weight"
                )
    return {name: mask_name for name, mask_name in mask_of_tensor.items() if name in checkpoint.tensors}


def _count_kept(masks: Masks, name: str) -> int:
    return sum(int(np.count_nonzero(masks.rows(name, *rows))) for rows in row_ranges(masks.shape(name)))


def _are_equal(masks: Masks, first: str, second: str) -> bool:
    shape = masks.shape(first)
    return masks.shape(second) == shape and all(
        np.array_equal(masks.rows(first, *rows), masks.rows(second, *rows)) for rows in row_ranges(shape)
    )


def _write(
    file: BinaryIO, tensor: StreamedTensor, masks: Masks, mask_name: str | None, on_bytes: Callable[[int], None]
) -> AppliedTensor:
    kept = 0
    unmasked_pieces = ((piece, 0) for piece in tensor.read())
    for piece, count in unmasked_pieces if mask_name is None else _masked_pieces(tensor, masks, mask_name):
        file.write(piece)
        kept += count
        on_bytes(len(piece))
    return AppliedTensor(tensor.name, tensor.dtype, tensor.shape, None if mask_name is None else kept)


def _masked_pieces(tensor: StreamedTensor, masks: Masks, mask_name: str) -> Iterator[tuple[bytes | memoryview, int]]:
    """Yield each piece of a tensor's bytes, with pruned entries set to zero, and the number of its kept entries."""
    item_bytes = DTYPE_BITS[tensor.dtype] // 8
    cols = (masks.shape(mask_name) or (1,))[-1]
    start = 0
    for piece in _pieces_of_whole_entries(tensor.read(), item_bytes):
        entries = np.frombuffer(piece, np.uint8).reshape(-1, item_bytes).copy()
        stop = start + len(entries)
        row = start // cols
        mask = masks.rows(mask_name, row, -(-stop // cols)).reshape(-1)[start - row * cols : stop - row * cols]
        entries[~mask] = 0
        yield entries.data.cast("B"), int(np.count_nonzero(mask))
        start = stop


def _pieces_of_whole_entries(pieces: Iterator[bytes | memoryview], item_bytes: int) -> Iterator[bytes]:
    remainder = b""
    for piece in pieces:
        joined = remainder + bytes(piece)
        size = len(joined) // item_bytes * item_bytes
        remainder = joined[size:]
        if size:
            yield joined[:size]
