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
    """A block, and what every batch calls it with.

    Attributes:
        name: Its name in the model.
        block: The block.
    """

    def __init__(self, blocks: BlockList, number: int, captured: Captured) -> None:
        self.name, self.block = blocks.name(number), blocks.modules[number]
        self._number, self._captured = number, captured

    @property
    def batches(self) -> int:
        """Number of batches."""
        return len(self._captured.kept)

    def call(self, batch: int) -> Call:
        """Return the block's call in a batch."""
        return self._captured.call(self._number, batch)

    def kept(self, batch: int) -> torch.Tensor | None:
        """Return `[sequences, tokens]`, False at padding, of a batch; None where nothing is padded."""
        return self._captured.kept[batch]

    def watcher(self, weights: Sequence[BlockWeight]) -> BlockWatcher:
        """Return what gathers statistics of some of its weights."""
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
            inputs: What the block before returned.
            into: Where the outputs go.
            target: What the outputs should be.
            watcher: Gathers statistics.

        Returns:
            The squared difference from the target, as a share of the target's square; 0 without one.

        Raises:
            PruningError: If an input of a watched weight, or a difference from the target, is not finite; the message
                names the batch.
        """
        difference = energy = 0.0
        for batch in range(self.batches):
            with nullcontext() if watcher is None else watcher.watching(batch, self.kept(batch)):
                outputs = self.call(batch).run(self.block, inputs.read(batch), self.name)
            if into is not None:
                into.write(batch, outputs)
            if target is None:
                continue
            more, of_target = self.squares(batch, outputs, target.read(batch))
            difference, energy = difference + float(more), energy + float(of_target)
            if not difference + energy < float("inf"):
                raise PruningError(f"its output contains NaN or infinity in batch {batch}", self.name)
        return difference / energy if energy else 0.0

    def squares(self, batch: int, outputs: Tensors, target: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the squared difference from a target, and the target's square, in float64; padding does not count."""
        ours, wanted, kept = outputs[0].double(), target[0].double(), self.kept(batch)
        if kept is not None:
            ours, wanted = ours[kept], wanted[kept]
        return (ours - wanted).square().sum(), wanted.square().sum()
