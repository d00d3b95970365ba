"""Estimates how many bytes pruning block by block writes, and refuses to start where they do not fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.choice import Choice
from masksmith_client.checkpoints.output_folder import check_space
from masksmith_wire.masks import packed_bytes
from masksmith_wire.quantities import size_text

from .skeleton import TORCH_DTYPES

FLOAT_BYTES = 4
REPORT_BYTES = 4096
"""Of each tensor, at most: its part of reports, records and headers."""
FILE_BYTES = 4096
"""Of each file, at most: its header, and what is free in its last page."""
ACTIVATION_SETS = 5
"""The inputs of the first block, and the dense and the pruned model's activations before and after a block."""


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes of the files of a run.

    Attributes:
        activations: Activations between blocks and arguments of blocks; removed when the last block is finished.
        blocks: Masks and updated weights of finished blocks; removed when the output is written.
        output: The output: weights and masks.
    """

    activations: int
    blocks: int
    output: int

    @property
    def largest(self) -> int:
        """Most bytes at one time."""
        return self.blocks + max(self.activations, self.output)

    def check(self, output: Path) -> None:
        """Refuse to start if the files do not fit on the disk, beside those that an earlier run has written.

        Args:
            output: The output, which need not exist.

        Raises:
            OSError: Naming the directory, the bytes that are needed, and what for.
        """
        written = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
        existing = next(folder for folder in (output, *output.parents) if folder.exists())
        purpose = (
            f"for activations {size_text(self.activations)}, which fewer --calibration-windows reduce, for finished "
            f"blocks {size_text(self.blocks)}, and then for the output {size_text(self.output)}"
        )
        check_space(existing, self.largest - written, purpose)


def space_of(
    checkpoint: Checkpoint, choice: Choice, model: Any, batches: Sequence[dict[str, Any]], *, is_updated: bool
) -> Space:
    """Return the bytes that a run writes.

    Args:
        checkpoint: What is pruned.
        choice: What is done with each of its tensors.
        model: Its model.
        batches: Batches of token ids.
        is_updated: Whether the weights are updated.
    """
    masks = sum(packed_bytes(tensor.shape) for tensor in choice.masked)
    updated = choice.masked if is_updated else []
    weights = sum(math.prod(each.shape) * int(getattr(torch, TORCH_DTYPES[each.dtype]).itemsize) for each in updated)
    files = sum(header.file_bytes for header in checkpoint.headers.values())
    activations = sum(_batch_bytes(model.config, *batch["input_ids"].shape) for batch in batches)
    reports = REPORT_BYTES * len(choice.masked)
    return Space(activations, masks + weights + reports, files + masks + reports)


def _batch_bytes(config: Any, windows: int, tokens: int) -> int:
    """Return the bytes of a batch's activations, attention masks and position embeddings."""
    text = config.get_text_config()
    kinds = len(set(getattr(text, "layer_types", None) or ())) or 1
    heads = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    activations = ACTIVATION_SETS * FLOAT_BYTES * windows * tokens * int(text.hidden_size)
    positions = 2 * FLOAT_BYTES * kinds * tokens * int(heads)
    return (
        activations
        + FILE_BYTES * (ACTIVATION_SETS + 1)
        + positions
        + kinds * windows * tokens * tokens * _mask_bytes(text)
    )


def _mask_bytes(config: Any) -> int:
    """Return the bytes of an entry of a mask `[windows, 1, tokens, tokens]` of attention; 0 if blocks get none."""
    if getattr(config, "_attn_implementation", None) == "eager":
        return FLOAT_BYTES
    return 1 if getattr(config, "sliding_window", None) else 0
