"""Read weights from safetensors files, sharded checkpoints and directories. Pickles are never loaded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.tensors import Tensor

from .streamed_tensor import StreamedTensor


def read_path(path: Path) -> list[StreamedTensor]:
    """List the tensors of a `.safetensors` file, a sharded checkpoint's `*.index.json`, or a directory of either.

    Raises:
        InputError: If there is no readable file; for a pickle the message says how to convert it.
    """
    return weights_of(Checkpoint.open(path).tensors.values())


def weights_of(tensors: Iterable[Tensor]) -> list[StreamedTensor]:
    """Return tensors of a checkpoint as tensors to upload."""
    return [StreamedTensor(each.name, each.dtype, each.shape, each.pieces) for each in tensors]
