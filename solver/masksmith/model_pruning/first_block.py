"""Records the calls of all blocks while only the first block computes, if the calls do not depend on other blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from masksmith._errors import PruningError

from .blocks import BlockList
from .capture import CapturedBatch, capture_batch
from .skipping import skipping


def capture_by_first_block(
    model: torch.nn.Module, blocks: BlockList, batches: Iterable[Any]
) -> Iterator[CapturedBatch]:
    """Yield the calls of the blocks in each batch, as `capture` does; for most models in much less time.

    In most models the arguments of a block, except what the previous block returns, depend on the batch alone: masks,
    positions. The first batch runs through all blocks; if there is a second batch, the first one then runs through the
    first block only. If both runs give the same calls, each later batch runs through the first block only; a batch
    whose calls cannot be recorded this way runs through all blocks instead. If the two runs differ, each later batch
    runs through all blocks.

    Args:
        model: The model, in evaluation mode, with the weights of its blocks.
        blocks: The model's blocks.
        batches: As for `capture`.

    Raises:
        PruningError: As `capture`.
    """
    captured_by_all_blocks, first_block_suffices = None, None
    for number, batch in enumerate(batches):
        if captured_by_all_blocks is None:
            captured_by_all_blocks, first_batch = capture_batch(model, blocks, batch, 0), batch
            yield captured_by_all_blocks
            continue
        if first_block_suffices is None:
            by_first_block = _by_first_block_only(model, blocks, first_batch, 0)
            first_block_suffices = (
                by_first_block is not None and first_difference(captured_by_all_blocks, by_first_block) is None
            )
        captured = _by_first_block_only(model, blocks, batch, number) if first_block_suffices else None
        yield capture_batch(model, blocks, batch, number) if captured is None else captured


def _by_first_block_only(model: torch.nn.Module, blocks: BlockList, batch: Any, number: int) -> CapturedBatch | None:
    """Record the calls while only the first block computes; None if they cannot be recorded so."""
    try:
        with skipping(blocks, lambda number: None):
            return capture_batch(model, blocks, batch, number, blocks_are_skipped=True)
    except PruningError:
        return None


def first_difference(one: CapturedBatch, other: CapturedBatch) -> int | None:
    """Return the number of the first block, in the order of `one`, whose call or position differs in `other`.

    None if all are equal.
    """
    for position, number in enumerate(one.order):
        call, other_call = one.calls[number], other.calls[number]
        is_same_block = position < len(other.order) and other.order[position] == number
        if not is_same_block or not _are_equal_trees(
            (call.arguments, call.keywords), (other_call.arguments, other_call.keywords)
        ):
            return number
    return None


def _are_equal_trees(left: Any, right: Any) -> bool:
    """Whether two nested arguments have the same structure, the same keys, and equal leaves."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return list(left) == list(right) and _are_equal_trees(list(left.values()), list(right.values()))
    if isinstance(left, (tuple, list)) and isinstance(right, (tuple, list)):
        return len(left) == len(right) and all(map(_are_equal_trees, left, right))
    return _are_equal_leaves(left, right)


def _are_equal_leaves(left: Any, right: Any) -> bool:
    """Whether two arguments are the same object or known to be equal.

    Objects without `__eq__`, and those whose `__eq__` raises or returns no bool, are unequal.
    """
    if left is right:
        return True
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    try:
        return (left == right) is True
    except Exception:  # noqa: BLE001  `__eq__` is the model's code, which may raise anything.
        return False
