"""Writes and reads tensor files, which get their final name only when they are complete."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from masksmith._errors import PruningError

from .file_errors import names_file

PARTIAL_SUFFIX = ".part"
"""Suffix of a file while it is written."""


@names_file
def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors and metadata to a file, which replaces an existing one; create its directory if that is missing.

    Raises:
        OSError: If the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    try:
        # Tensors are copied because `save_file` refuses tensors that share memory.
        copies = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
        }
        save_file(copies, partial, None if metadata is None else dict(metadata))
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from None
    finally:
        partial.unlink(missing_ok=True)


@names_file
def read_tensors(path: Path, names: Iterable[str] | None = None) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read the metadata of a file and some of its tensors, by default all.

    Raises:
        PruningError: If the file is damaged, or lacks one of the tensors `names`.
        OSError: If the file cannot be opened.
    """
    try:
        with safe_open(path, "pt") as file:
            selected = file.keys() if names is None else names
            return {name: file.get_tensor(name) for name in selected}, file.metadata() or {}
    except SafetensorError as error:
        raise PruningError(f"{path} is damaged ({error}); remove its folder, and prune from the beginning") from None
