"""Read weights from safetensors files, sharded checkpoints and directories. Pickles are never loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.choice import ChoiceOptions, candidates_in
from masksmith_client.checkpoints.tensors import Tensor

from .streamed_tensor import StreamedTensor


def read_path(path: Path) -> list[StreamedTensor]:
    """List the tensors of a `.safetensors` file, a sharded checkpoint's `*.index.json`, or a directory of either.

    Raises:
        InputError: If there is no readable file; for a pickle the message says how to convert it.
    """
    return weights_of(Checkpoint.open(path).tensors.values())


def read_model(path: Path, *, trust_remote_code: bool = False) -> tuple[list[StreamedTensor], list[str]]:
    """List the tensors of a checkpoint with the layouts that classes and config show, and notes on the rest.

    Weights of 8-bit floats are read through their scales.

    Raises:
        InputError: As `read_path` does, and if the checkpoint is quantised otherwise.
    """
    checkpoint = Checkpoint.open(path)
    checkpoint.check_is_readable()
    candidates, notes = candidates_in(checkpoint, ChoiceOptions(trust_remote_code=trust_remote_code))
    weights = [
        replace(
            weight,
            layout=candidate.layout,
            # Other reasons follow from names, and do not keep a glob from selecting it.
            dense_by_default=candidate.dense_by_default if candidate.only_by_name else None,
            file_format=candidate.file_format,
        )
        for weight, candidate in zip(weights_of(map(checkpoint.weight, checkpoint.tensors)), candidates, strict=True)
    ]
    # A file alone has no config, which needs no note.
    return weights, [*checkpoint.notes, *(notes if checkpoint.config is not None or path.is_dir() else ())]


def weights_of(tensors: Iterable[Tensor]) -> list[StreamedTensor]:
    """Return tensors of a checkpoint as tensors to upload."""
    return [StreamedTensor(each.name, each.dtype, each.shape, each.pieces) for each in tensors]
