"""Tensor files that get their name when they are complete, so that a killed process leaves no partial file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from masksmith._errors import PruningError

PART_SUFFIX = ".part"


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors and metadata to a file; replaces an existing one.

    Raises:
        OSError: If it cannot be written; the error names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + PART_SUFFIX)
    try:
        # Each tensor is written by itself, even where two of them share memory.
        own = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
        }
        save_file(own, part, None if metadata is None else dict(metadata))
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from None
    finally:
        part.unlink(missing_ok=True)


def read_tensors(path: Path, names: Iterable[str] | None = None) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read tensors, by default all, and the metadata of a file.

    Raises:
        PruningError: If the file is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            selected = file.keys() if names is None else names
            return {name: file.get_tensor(name) for name in selected}, file.metadata() or {}
    except SafetensorError as error:
        raise PruningError(f"{path} is damaged ({error}); remove its folder, and prune from the beginning") from None
