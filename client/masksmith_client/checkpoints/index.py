"""Reads the headers of a checkpoint's files, and finds the file of each tensor, by the index if there is one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from masksmith_client._errors import InputError
from masksmith_wire.headers import Header
from masksmith_wire.output_names import PICKLE_SUFFIXES

from .conversion_advice import pickle_message
from .files import read_file_header, read_weight_map
from .tensors import Tensor


@dataclass(frozen=True)
class Shards:
    """The headers of a checkpoint's files, and the file of each of its tensors.

    Attributes:
        headers: Headers by file, in the order in which the index first names the files.
        tensors: All tensors of the files by name, each in the file that the index names; without an index, in the
            only file.
        unlisted: Members of `tensors` that the index does not list. `from_pretrained` loads all tensors of a file that
            the index names, so they belong to the model.
        duplicates: Maps a tensor's name to the files that contain the tensor, besides the one that the index names.
    """

    headers: Mapping[Path, Header]
    tensors: Mapping[str, Tensor]
    unlisted: Mapping[str, Tensor] = field(default_factory=dict)
    duplicates: Mapping[str, list[Path]] = field(default_factory=dict)


def read_shards(path: Path, *, is_index: bool) -> Shards:
    """Read the headers of a checkpoint's files.

    Args:
        path: The index, or the only `.safetensors` file.
        is_index: Whether `path` is an index.

    Raises:
        InputError: If a file is missing or unreadable; if the index names a file outside its directory or of another
            format; or if index and files contradict each other; the message then names the tensor.
    """
    if is_index:
        return _read_sharded(path)
    header = read_file_header(path)
    return Shards({path: header}, {entry.name: Tensor.of(path, entry) for entry in header.tensors.values()})


def _read_sharded(index: Path) -> Shards:
    weight_map = read_weight_map(index)
    headers = {file: _shard_header(index, file) for file in dict.fromkeys(weight_map.values())}
    _check_listed(index, weight_map, headers)
    tensors = {name: Tensor.of(index.parent / file, headers[file].tensors[name]) for name, file in weight_map.items()}
    unlisted: dict[str, Tensor] = {}
    duplicates: dict[str, list[Path]] = {}
    for file, header in headers.items():
        for entry in header.tensors.values():
            if entry.name not in weight_map:
                _add_unlisted(unlisted, Tensor.of(index.parent / file, entry), index)
            elif weight_map[entry.name] != file:
                _check_duplicate(tensors[entry.name], Tensor.of(index.parent / file, entry), index)
                duplicates.setdefault(entry.name, []).append(index.parent / file)
    by_path = {index.parent / file: header for file, header in headers.items()}
    return Shards(by_path, tensors | unlisted, unlisted, duplicates)


def _shard_header(index: Path, file: str) -> Header:
    # The index may be untrusted: it may name only files in its own directory.
    if Path(file).name != file:
        raise InputError(f"{index} names a file outside its directory: {file!r}")
    path = index.parent / file
    if path.suffix in PICKLE_SUFFIXES:
        raise InputError(pickle_message(path))
    if path.suffix != ".safetensors":
        raise InputError(f"{index} names {file!r}, which is not a .safetensors file")
    # If the path is a link to a missing file, the message of `read_file_header` says where it points. A file whose name
    # is too long for the file system counts as missing.
    if not os.path.lexists(path):
        raise InputError(f"{path} is missing, a file that {index.name} lists; download the checkpoint completely")
    return read_file_header(path)


def _check_listed(index: Path, weight_map: Mapping[str, str], headers: Mapping[str, Header]) -> None:
    """Check that each tensor is in the file that the index names for it."""
    for name, file in weight_map.items():
        if name not in headers[file].tensors:
            actual_file = next((other for other, header in headers.items() if name in header.tensors), None)
            hint = "" if actual_file is None else f"; {actual_file} does"
            raise InputError(f"{index} lists {name!r} in {file}, but that file does not contain it{hint}")


def _add_unlisted(unlisted: dict[str, Tensor], tensor: Tensor, index: Path) -> None:
    first = unlisted.setdefault(tensor.name, tensor)
    if first is not tensor:
        raise InputError(
            f"{tensor.name!r} is in {first.file.name} and in {tensor.file.name}, and {index} lists it in neither"
        )


def _check_duplicate(listed: Tensor, copy: Tensor, index: Path) -> None:
    if (copy.dtype, copy.shape) != (listed.dtype, listed.shape):
        raise InputError(
            f"{copy.file.name} contains {copy.name!r} as {copy.dtype} {list(copy.shape)}, and {listed.file.name}, "
            f"which {index} names for it, as {listed.dtype} {list(listed.shape)}; remove one of them"
        )
