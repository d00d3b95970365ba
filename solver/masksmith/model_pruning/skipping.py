"""Replaces the forward passes of a model's blocks; only the block that runs first computes, and needs its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch

from masksmith._errors import PruningError

from .blocks import BlockList
from .calls import map_leaves, tensors_of


@contextmanager
def skipping(blocks: BlockList, load: Callable[[int], None], *, with_numbers: bool = False) -> Iterator[None]:
    """Replace the blocks' forward passes within the context, and restore them afterwards.

    Only the block that runs first computes, since its result shows how many tensors blocks return, and their shapes.
    All blocks return tensors of these shapes. Tensors of a float dtype are filled with NaN, so every float that depends
    on them is NaN, too. An integer or bool that depends on them, such as the result of a comparison, cannot be
    NaN; to find these, the caller compares a pass with NaN and a pass with numbers.

    Args:
        blocks: The blocks.
        load: Loads the weights of a block; called once, for the block that runs first.
        with_numbers: Whether the tensors are filled with random numbers, the same ones in each pass, instead of NaN.

    Raises:
        PruningError: Inside the context, if the block that runs first returns no tensor, or returns one in a container
            other than a tuple, list or dict.
    """
    replacements = _ReplacementForwards(blocks, load, with_numbers)
    # Only a forward pass that is set on the module itself has to be restored; the others are those of the class.
    own_forwards = {module: vars(module).get("forward") for module in blocks.modules}
    try:
        for number, module in enumerate(blocks.modules):
            module.forward = replacements.forward_of(number, module.forward)
        yield
    finally:
        for module, forward in own_forwards.items():
            del module.forward
            if forward is not None:
                module.forward = forward


class _ReplacementForwards:
    """The forward passes that replace those of the blocks."""

    def __init__(self, blocks: BlockList, load: Callable[[int], None], with_numbers: bool) -> None:
        self._blocks, self._load, self._with_numbers = blocks, load, with_numbers
        self._first: int | None = None
        self._filled_output: Any = None

    def forward_of(self, number: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        """Return the replacement of `forward`, the forward pass of block `number`."""

        @wraps(forward)  # Arguments are named by the signature, to find a cache among them.
        def replacement(*arguments: Any, **keywords: Any) -> Any:
            if self._first is None:
                self._first = number
                self._load(number)
            if number == self._first:
                self._filled_output = self._filled(forward(*arguments, **keywords))
            return map_leaves(self._filled_output, _copy)

        return replacement

    def _filled(self, output: Any) -> Any:
        assert self._first is not None
        filled = map_leaves(output, _copy)
        before, after = tensors_of(output), tensors_of(filled)
        # A tensor in a container that `map_leaves` does not enter is not copied.
        if not after or any(one is other for one, other in zip(before, after, strict=True)):
            reason = (
                f"it returns {type(output).__name__}; only tensors, and tuples, lists and dicts of them, are supported"
            )
            raise PruningError(f"{reason}; load the whole model and prune it in memory", self._blocks.name(self._first))
        for tensor in after:
            if tensor.is_floating_point():
                tensor.copy_(_random_numbers(tensor)) if self._with_numbers else tensor.fill_(float("nan"))
        return filled


def _random_numbers(tensor: torch.Tensor) -> torch.Tensor:
    """Return numbers of the standard normal distribution for a tensor of this shape, the same ones at each call."""
    return torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0), device="cpu")


def _copy(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, torch.Tensor) else leaf
