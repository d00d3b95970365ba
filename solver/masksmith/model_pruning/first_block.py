"""Records the calls of all blocks while only the first block computes, where the calls do not depend on the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any

import torch

from masksmith._errors import PruningError

from .blocks import BlockList
from .calls import leaves_of
from .capture import CapturedBatch, capture_batch
from .skipping import skipping


def capture_by_first_block(
    model: torch.nn.Module, blocks: BlockList, batches: Iterable[Any]
) -> Iterator[CapturedBatch]:
    """Yield the calls of the blocks in each batch, as `capture` does, in much less time.

    In most models the arguments of a block, but for what the previous block returns, depend on the batch alone: masks,
    positions. The first batch runs through all blocks and then, if there is a second one, through the first block only.
    If both give the same calls, the other batches run through the first block only, else through all blocks; so does a
    batch whose calls cannot be recorded by the first block only.

    Args:
        model: The model, in evaluation mode, with the weights of its blocks.
        blocks: The model's blocks.
        batches: As for `capture`.

    Raises:
        PruningError: As `capture`.
    """
    computed, agree = None, None
    for number, batch in enumerate(batches):
        if computed is None:
            computed, first = capture_batch(model, blocks, batch, 0), batch
            yield computed
            continue
        if agree is None:
            agree = _are_equal(computed, _by_first_block_only(model, blocks, first, 0))
        captured = _by_first_block_only(model, blocks, batch, number) if agree else None
        yield capture_batch(model, blocks, batch, number) if captured is None else captured


def _by_first_block_only(model: torch.nn.Module, blocks: BlockList, batch: Any, number: int) -> CapturedBatch | None:
    """Return the calls while only the first block computes; None if they cannot be recorded so."""
    try:
        with skipping(blocks, lambda loaded: None):
            return capture_batch(model, blocks, batch, number, blocks_are_skipped=True)
    except PruningError:
        return None


def _are_equal(one: CapturedBatch, other: CapturedBatch | None) -> bool:
    if other is None or one.order != other.order:
        return False
    return all(
        _are_equal_leaves(left, right)
        for call, other_call in zip(one.calls, other.calls, strict=True)
        for left, right in zip_longest(
            leaves_of((call.arguments, call.keywords)), leaves_of((other_call.arguments, other_call.keywords))
        )
    )


def _are_equal_leaves(left: Any, right: Any) -> bool:
    """Whether two arguments are the same object or have the same value, which some classes do not compare."""
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    return left is right or (type(left) is type(right) and bool(left == right))
