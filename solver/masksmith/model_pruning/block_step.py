"""Passes of all batches through one block."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch

from masksmith._errors import PruningError

from .activations import Activations
from .blocks import BlockList
from .calls import Call, Tensors
from .captured import Captured
from .watching import BlockWatcher
from .weights import BlockWeight


class BlockStep:
    """A block, and its recorded calls in all batches.

    Attributes:
        name: The block's name in the model.
        block: The block.
    """

    def __init__(self, blocks: BlockList, number: int, captured: Captured) -> None:
        self.name, self.block = blocks.name(number), blocks.modules[number]
        self._number, self._captured = number, captured

    @property
    def batches(self) -> int:
        """Number of batches."""
        return len(self._captured.token_masks)

    def call(self, batch: int) -> Call:
        """Return the block's call in a batch."""
        return self._captured.call(self._number, batch)

    def token_mask(self, batch: int) -> torch.Tensor | None:
        """Return `[sequences, tokens]`, False at padding, of a batch; None where nothing is padded."""
        return self._captured.token_masks[batch]

    def watcher(self, weights: Sequence[BlockWeight]) -> BlockWatcher:
        """Return a watcher that gathers the statistics of some of the block's weights."""
        return BlockWatcher(self.block, self.name, weights)

    def run(
        self,
        inputs: Activations,
        *,
        into: Activations | None = None,
        target: Activations | None = None,
        watcher: BlockWatcher | None = None,
    ) -> float:
        """Run all batches, one at a time.

        Args:
            inputs: Outputs of the previous block.
            into: Storage for the outputs; None to discard them.
            target: Outputs to compare with, or None.
            watcher: Gathers statistics of the weights, or None.

        Returns:
            The squared norm of the difference from the target, relative to that of the target; 0 without a target.

        Raises:
            PruningError: If an input of a watched weight, or a difference from the target, is not finite; the message
                names the batch.
        """
        difference = energy = 0.0
        for batch in range(self.batches):
            with nullcontext() if watcher is None else watcher.watching(batch, self.token_mask(batch)):
                outputs = self.call(batch).run(self.block, inputs.read(batch), self.name)
            if into is not None:
                into.write(batch, outputs)
            if target is None:
                continue
            batch_difference, batch_energy = self.squared_norms(batch, outputs, target.read(batch))
            difference, energy = difference + float(batch_difference), energy + float(batch_energy)
            if not difference + energy < float("inf"):
                raise PruningError(f"its output contains NaN or infinity in batch {batch}", self.name)
        return difference / energy if energy else 0.0

    def squared_norms(self, batch: int, outputs: Tensors, target: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the squared norms of the difference from a target and of the target, in float64, without padding."""
        output, expected, token_mask = outputs[0].double(), target[0].double(), self.token_mask(batch)
        if token_mask is not None:
            output, expected = output[token_mask], expected[token_mask]
        return (output - expected).square().sum(), expected.square().sum()
