"""List the tensors of safetensors files, sharded checkpoints and directories. Pickles are never loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.choice import ChoiceOptions, candidates_in
from masksmith_client.checkpoints.tensors import Tensor

from .streamed_tensor import StreamedTensor


def list_tensors(path: Path) -> list[StreamedTensor]:
    """List the tensors of a `.safetensors` file, a sharded checkpoint's `*.index.json`, or a directory of either.

    Raises:
        InputError: If a file is missing, unreadable or contradicts another; for a pickle the message says how to
            convert it.
    """
    return streamed_tensors(Checkpoint.open(path).tensors.values())


def list_model_tensors(path: Path, *, trust_remote_code: bool = False) -> tuple[list[StreamedTensor], list[str]]:
    """List the tensors of a checkpoint with their layouts, and return notes for the user.

    Layouts are found from the model's classes and config, or else from names and shapes; the notes name the tensors
    whose layout neither the classes nor the config show, and say why. Weights of 8-bit floats are multiplied by their
    scales when the weights are read.

    Raises:
        InputError: As `list_tensors` does; if the checkpoint is quantised in a way that is not read; or if a scale is
            missing or invalid.
    """
    checkpoint = Checkpoint.open(path)
    checkpoint.check_is_readable()
    candidates, notes = candidates_in(checkpoint, ChoiceOptions(trust_remote_code=trust_remote_code))
    weights = [
        replace(
            weight,
            layout=candidate.layout,
            # In a `StreamedTensor`, this reason also means that no glob selects the tensor. For other tensors it is not
            # copied: `candidates_of` derives their reasons again from names and shapes.
            dense_by_default_reason=candidate.dense_by_default_reason if candidate.only_by_name else None,
            file_format=candidate.file_format,
        )
        for weight, candidate in zip(
            streamed_tensors(map(checkpoint.weight, checkpoint.tensors)), candidates, strict=True
        )
    ]
    # Without a config, the only note of `candidates_in` is that the config is missing. It is left out for the path of a
    # file or an index, beside which there often is no config.
    return weights, [*checkpoint.notes, *(notes if checkpoint.config is not None or path.is_dir() else ())]


def streamed_tensors(tensors: Iterable[Tensor]) -> list[StreamedTensor]:
    """Return tensors of a checkpoint as tensors to upload."""
    return [StreamedTensor(tensor.name, tensor.dtype, tensor.shape, tensor.pieces) for tensor in tensors]
