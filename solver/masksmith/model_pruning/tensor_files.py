"""Writes and reads tensor files, which get their final name only when they are complete.

A file has a digest of each tensor and one of its metadata, so that a file that was changed is refused when it is read,
even if its size is the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save, save_file

from masksmith._atomic_write import replaced_when_complete
from masksmith._errors import PruningError

from .file_errors import names_file

PARTIAL_SUFFIX = ".part"
"""Suffix of a file while it is written."""
DIGESTS_KEY = "masksmith_digests"
"""Metadata member: JSON, name of each tensor -> BLAKE3 digest of its dtype, shape and bytes."""
IN_MEMORY = "load the whole model and prune it in memory"
"""Advice where something cannot be written to a file."""
METADATA_DIGEST_KEY = "masksmith_metadata_digest"
"""Metadata member: BLAKE3 digest of the other members, as JSON sorted by name."""


def unwritable_kind(tensor: torch.Tensor) -> str | None:
    """Return what a tensor is that no file can hold, such as "a sparse tensor"; None if it can be written."""
    if tensor.layout is not torch.strided or tensor.is_nested:
        return f"a tensor of the layout {'nested' if tensor.is_nested else tensor.layout}"
    return None if _is_writable(tensor.dtype) else f"a tensor of {tensor.dtype}"


@cache
def _is_writable(dtype: torch.dtype) -> bool:
    try:
        load(save({"": torch.empty(1, dtype=dtype, device="cpu")}))
    except (KeyError, RuntimeError, SafetensorError, TypeError, ValueError):
        return False
    return True


@names_file
def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors and metadata to a file, which replaces an existing one; create its directory if that is missing.

    Raises:
        PruningError: If a file cannot hold one of the tensors.
        OSError: If the file cannot be written.
    """
    kind = next(filter(None, map(unwritable_kind, tensors.values())), None)
    if kind is not None:
        raise PruningError(f"{kind} cannot be written to a file; {IN_MEMORY}")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    try:
        # Tensors are copied because `save_file` refuses tensors that share memory.
        copies = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
        }
        with replaced_when_complete(path, partial):
            # If the file cannot be created, this raises an OSError with its number; `save_file` hides the number.
            partial.touch()
            save_file(copies, partial, _with_digests(copies, metadata or {}))
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from None


@names_file
def read_tensors(path: Path, names: Iterable[str] | None = None) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read the metadata of a file and some of its tensors, by default all, and check their digests.

    Raises:
        PruningError: If the file is damaged, lacks one of the tensors `names`, or has other contents than
            `write_tensors` wrote.
        OSError: If the file cannot be opened.
    """
    with _opened(path) as file:
        metadata = file.metadata() or {}
        digests = _checked_digests(path, metadata)
        selected = file.keys() if names is None else names
        tensors = {name: file.get_tensor(name) for name in selected}
    for name, tensor in tensors.items():
        if _tensor_digest(tensor) != digests.get(name):
            raise _changed_error(path, f"{name!r} does not have its digest")
    return tensors, metadata


def check_tensors(path: Path) -> None:
    """Check the digests of all tensors of a file; one tensor at a time is in memory.

    Raises:
        PruningError: As `read_tensors`.
        OSError: If the file cannot be opened.
    """
    with _opened(path) as file:
        names = list(file.keys())
    for name in names:
        read_tensors(path, (name,))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file for reading; if it is damaged, raise a PruningError that names it."""
    try:
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise PruningError(f"{path} is damaged ({error}); remove its folder, and prune from the beginning") from None


def _with_digests(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata of a file, with the digests of its tensors and of the metadata."""
    digests = {name: _tensor_digest(tensor) for name, tensor in tensors.items()}
    members = {**metadata, DIGESTS_KEY: json.dumps(digests)}
    return {**members, METADATA_DIGEST_KEY: _metadata_digest(members)}


def _checked_digests(path: Path, metadata: dict[str, str]) -> dict[str, str]:
    """Remove both members with digests from the metadata, check its digest, and return the tensors' digests by name."""
    expected = metadata.pop(METADATA_DIGEST_KEY, None)
    if _metadata_digest(metadata) != expected:
        raise _changed_error(path, "its metadata does not have its digest")
    digests: dict[str, str] = json.loads(metadata.pop(DIGESTS_KEY))
    return digests


def _metadata_digest(members: Mapping[str, str]) -> str:
    return str(blake3(json.dumps(members, sort_keys=True).encode()).hexdigest())


def _tensor_digest(tensor: torch.Tensor) -> str:
    """Return the digest of the dtype, the shape and the bytes of a contiguous tensor on the CPU."""
    digest = blake3(json.dumps([str(tensor.dtype), list(tensor.shape)]).encode(), max_threads=blake3.AUTO)
    return str(digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data).hexdigest())


def _changed_error(path: Path, reason: str) -> PruningError:
    return PruningError(
        f"{path} is not as prune wrote it ({reason}); restore it, or remove its folder, and prune from the beginning"
    )
