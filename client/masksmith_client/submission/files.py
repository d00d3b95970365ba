"""Weights on disk, ready to be sent: of a file, a sharded checkpoint or a directory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.tensors import Tensor

from .weights import Weight


def read_path(path: Path) -> list[Weight]:
    """List the tensors of a `.safetensors` file, a sharded checkpoint's `*.index.json`, or a directory of either.

    Raises:
        InputError: If there is no readable file; for a pickle the message says how to convert it.
    """
    return weights_of(Checkpoint.open(path).tensors.values())


def weights_of(tensors: Iterable[Tensor]) -> list[Weight]:
    """Make tensors of a checkpoint ready to be sent."""
    return [Weight(each.name, each.dtype, each.shape, each.pieces) for each in tensors]
