"""Read weights from the forms that callers may pass: a mapping of tensors, a torch module, or a path."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from masksmith.layouts import plain_path
from masksmith_client._errors import InputError

from .files import list_model_tensors
from .modules import with_module_layouts
from .overlaps import Pair, overlapping_pairs
from .streamed_tensor import StreamedTensor
from .tensors import read_mapping
from .ties import TieGroup, ties_in_memory


@dataclass(frozen=True, slots=True)
class InputWeights:
    """Weights to select from, with their ties, and notes for the user.

    Attributes:
        tensors: All tensors, masked or not.
        notes: Notes on the checkpoint, for example that a forward pass of the model could not be traced; none for
            weights in memory.
        ties: Groups of names whose weights are the same memory; none for files.
        overlaps: Pairs of names of weights that share memory, tied weights included; none for files.
    """

    tensors: list[StreamedTensor]
    notes: Sequence[str] = ()
    ties: Sequence[TieGroup] = ()
    overlaps: Sequence[Pair] = ()


def read_weights(weights: object, *, trust_remote_code: bool = False) -> InputWeights:
    """Read weights from any input that `prepare` accepts.

    Args:
        weights: The input.
        trust_remote_code: Whether code that a checkpoint brings may run, to watch the model's forward pass.

    Raises:
        InputError: If the input has another type, a mapping has a name or value that is not allowed, or a checkpoint
            cannot be read; see `read_mapping` and `list_model_tensors`.
    """
    if isinstance(weights, (str, os.PathLike)):
        return InputWeights(*list_model_tensors(Path(weights), trust_remote_code=trust_remote_code))
    if not isinstance(weights, Mapping) and callable(getattr(weights, "state_dict", None)):
        state = weights.state_dict()  # type: ignore[attr-defined]
        plain_state = {plain_path(weights, name): value for name, value in state.items()}
        return _in_memory(plain_state, with_module_layouts(weights, read_mapping(plain_state)))
    if not isinstance(weights, Mapping):
        raise InputError(f"weights must be a dict of tensors, a torch module or a path, not a {type(weights).__name__}")
    return _in_memory(weights, read_mapping(weights))


def _in_memory(values: Mapping[str, Any], tensors: list[StreamedTensor]) -> InputWeights:
    return InputWeights(tensors, ties=ties_in_memory(values), overlaps=overlapping_pairs(values))
