"""Estimates the size of the files that pruning block by block writes, and checks that they fit on the disk."""

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
"""Bytes of a float32, the dtype of activations, position embeddings and masks of eager attention."""
REPORT_BYTES = 4096
"""Upper bound of the bytes that one tensor adds to reports, records and headers."""
FILE_OVERHEAD_BYTES = 4096
"""Upper bound of the bytes of a file's header and of the unused rest of its last page, together."""
ACTIVATION_TENSORS = 5
"""Number of tensors of activations of one batch that are in files at the same time: the inputs of the first block, and
the activations of the dense and of the pruned model before and after a block."""


@dataclass(frozen=True, slots=True)
class Space:
    """Estimated bytes of the files of a run that prunes all blocks.

    Attributes:
        activations: Activations between blocks, and arguments of blocks; removed when the last block is finished.
        blocks: Masks, updated weights and reports of finished blocks; removed when the output is written.
        output: The output: weights, masks and their reports.
    """

    activations: int
    blocks: int
    output: int

    @property
    def peak(self) -> int:
        """The most bytes that are on the disk at one time."""
        return self.blocks + max(self.activations, self.output)

    def check(self, output: Path) -> None:
        """Check that the files fit on the disk; bytes that are already in the output directory are not counted again.

        Args:
            output: The directory of the output, which need not exist.

        Raises:
            OSError: If they do not fit; the message names the directory, the bytes that are needed, and their purpose.
        """
        written_bytes = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
        existing_folder = next(folder for folder in (output, *output.parents) if folder.exists())
        purpose = (
            f"for activations {size_text(self.activations)} (less with fewer --calibration-windows), for finished "
            f"blocks {size_text(self.blocks)}, and then for the output {size_text(self.output)}"
        )
        check_space(existing_folder, self.peak - written_bytes, purpose)


def space_of(
    checkpoint: Checkpoint, choice: Choice, model: Any, batches: Sequence[dict[str, Any]], *, is_updated: bool
) -> Space:
    """Estimate the bytes of the files of a run that prunes all blocks.

    Args:
        checkpoint: The checkpoint to prune.
        choice: Which of its tensors are pruned, and how.
        model: The model of the checkpoint, without weights.
        batches: Batches `{"input_ids": ids}` with token ids `[windows, tokens]`.
        is_updated: Whether the weights are updated.
    """
    mask_bytes = sum(packed_bytes(tensor.shape) for tensor in choice.masked_tensors)
    updated_tensors = choice.masked_tensors if is_updated else []
    updated_bytes = sum(
        math.prod(tensor.shape) * int(getattr(torch, TORCH_DTYPES[tensor.dtype]).itemsize) for tensor in updated_tensors
    )
    weight_file_bytes = sum(header.file_bytes for header in checkpoint.headers.values())
    activation_bytes = sum(_batch_bytes(model.config, *batch["input_ids"].shape) for batch in batches)
    report_bytes = REPORT_BYTES * len(choice.masked_tensors)
    return Space(
        activations=activation_bytes,
        blocks=mask_bytes + updated_bytes + report_bytes,
        output=weight_file_bytes + mask_bytes + report_bytes,
    )


def _batch_bytes(config: Any, windows: int, tokens: int) -> int:
    """Return the bytes of the files of a batch: activations, attention masks and position embeddings."""
    text_config = config.get_text_config()
    # Each type of layer, such as full and sliding attention, has its own attention mask and position embeddings.
    layer_types = len(set(getattr(text_config, "layer_types", None) or ())) or 1
    head_size = getattr(text_config, "head_dim", None) or text_config.hidden_size // text_config.num_attention_heads
    activation_bytes = ACTIVATION_TENSORS * FLOAT_BYTES * windows * tokens * int(text_config.hidden_size)
    # Position embeddings are a tensor of cosines and one of sines.
    position_bytes = 2 * FLOAT_BYTES * layer_types * tokens * int(head_size)
    mask_bytes = layer_types * windows * tokens * tokens * _attention_mask_entry_bytes(text_config)
    # One file for each tensor of activations, and one for the arguments of the blocks.
    return activation_bytes + FILE_OVERHEAD_BYTES * (ACTIVATION_TENSORS + 1) + position_bytes + mask_bytes


def _attention_mask_entry_bytes(config: Any) -> int:
    """Return the bytes of an entry of an attention mask `[windows, 1, tokens, tokens]`; 0 if blocks get no mask.

    Eager attention gets masks of floats; other attention gets masks of bools, and these only with sliding windows.
    """
    if getattr(config, "_attn_implementation", None) == "eager":
        return FLOAT_BYTES
    return 1 if getattr(config, "sliding_window", None) else 0
