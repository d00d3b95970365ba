"""Passes of all batches through one block."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

import torch

from masksmith._errors import PruningError

from .activations import Activations
from .blocks import BlockList
from .calls import Call, Tensors
from .captured import Captured
from .watching import BlockWatcher
from .weights import BlockWeight

SMALLEST_ENERGY = 1e-3
"""A token's error is divided by at least this share of the typical squared norm: see `_smallest_energy`."""


class BlockStep:
    """A block, and its recorded calls in all batches.

    Args:
        blocks: The blocks.
        number: Number of the block.
        captured: The recorded calls.
        measured_batches: Number of batches, from the first one, in which outputs are compared with a target.

    Attributes:
        name: The block's name in the model.
        block: The block.
    """

    def __init__(self, blocks: BlockList, number: int, captured: Captured, measured_batches: int) -> None:
        self.name, self.block = blocks.name(number), blocks.modules[number]
        self._number, self._captured, self._measured_batches = number, captured, measured_batches

    @property
    def batch_count(self) -> int:
        """Number of batches."""
        return len(self._captured.token_masks)

    def call(self, batch: int) -> Call:
        """Return the block's call in a batch."""
        return self._captured.call(self._number, batch)

    def token_mask(self, batch: int) -> torch.Tensor | None:
        """Return the token mask of a batch: `[sequences, tokens]`, False at padding; None if nothing is padded."""
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
        only_measured: bool = False,
    ) -> float:
        """Run the block on all batches, or on the measured ones, one at a time.

        Args:
            inputs: What the previous block returned, or what the first block gets.
            into: Storage for the outputs; None to discard them.
            target: Outputs of the measured batches to compare with, or None.
            watcher: Gathers statistics of the weights, or None.
            only_measured: Run the measured batches only.

        Returns:
            The mean of `token_errors` over the tokens of the measured batches; 0 without a target.

        Raises:
            PruningError: If an input of a watched weight is not finite; if there is a target, and an output or its
                error is not finite (the message names the batch); and as in `Call.run`, `TokenOrders.find` and
                `BlockWatcher.watching`.
        """
        total, tokens = 0.0, 0
        for batch in range(self._measured_batches if only_measured else self.batch_count):
            run_block, token_mask = partial(self.call(batch).run, self.block, name=self.name), self.token_mask(batch)
            if watcher is not None and token_mask is not None:
                watcher.find_token_orders(run_block, inputs.read(batch), token_mask)
            with nullcontext() if watcher is None else watcher.watching(batch, token_mask):
                outputs = run_block(inputs.read(batch))
            if into is not None:
                into.write(batch, outputs)
            if target is None:
                continue
            if batch < self._measured_batches:
                errors = self.token_errors(batch, outputs, target.read(batch))
                total, tokens = total + float(errors.sum()), tokens + len(errors)
                is_finite = total < float("inf")
            else:
                is_finite = bool(self._without_padding(batch, outputs).isfinite().all())
            if not is_finite:
                raise PruningError(f"its output contains NaN or infinity in batch {batch}", self.name)
        return total / tokens if tokens else 0.0

    def token_errors(self, batch: int, outputs: Tensors, target: Tensors) -> torch.Tensor:
        """Return the error `||y - t||^2 / ||t||^2` of each token's output `y` from its target `t`, in float64.

        The first tensor that the block returns is its output. Tokens of padding are left out. All others count
        equally, since the next block normalises its inputs: in many language models, the norm of a few tokens is
        hundreds of times that of all others, and a sum of squared differences would depend on these few alone.
        `||t||^2` is replaced by `_smallest_energy` if it is less, so that no error is divided by 0.
        """
        output, expected = self._without_padding(batch, outputs).double(), self._without_padding(batch, target).double()
        energies = expected.square().sum(-1).reshape(-1)
        return (output - expected).square().sum(-1).reshape(-1) / energies.clamp(min=_smallest_energy(energies))

    def _without_padding(self, batch: int, outputs: Tensors) -> torch.Tensor:
        """Return the block's output without the tokens of padding."""
        token_mask = self.token_mask(batch)
        return outputs[0] if token_mask is None else outputs[0][token_mask]


def _smallest_energy(energies: torch.Tensor) -> float:
    """Return `SMALLEST_ENERGY` times the median, or if that is 0, times the mean; 1 if all are 0 or there are none."""
    typical = float(energies.median()) or float(energies.mean()) if len(energies) else 0.0
    return SMALLEST_ENERGY * typical or 1.0
