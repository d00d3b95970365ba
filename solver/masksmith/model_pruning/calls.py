"""Recorded calls of blocks: their arguments, with placeholders for the outputs of the previous block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from masksmith._errors import PruningError

Tensors = list[torch.Tensor]
CHANGED_ARGUMENT = (
    "a tensor among its arguments is changed in place in the same pass, so that the call cannot be repeated; "
    "let the model change a copy"
)
"""Why a call cannot be recorded, or run again."""


@dataclass(frozen=True, slots=True)
class OutputPlaceholder:
    """A placeholder for an output of the previous block.

    Attributes:
        number: Position of the output among all tensors that the previous block returns.
    """

    number: int


@dataclass(frozen=True)
class Call:
    """The positional and keyword arguments of one call of a block."""

    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]

    def run(self, block: Callable[..., Any], inputs: Sequence[torch.Tensor], name: str) -> Tensors:
        """Call a block with the recorded arguments, and copies of the `inputs` in place of the placeholders.

        Args:
            block: The block.
            inputs: The tensors that the previous block returned; for the first block, what the model passes to it.
            name: Name of the block in error messages.

        Returns:
            The tensors that the block returns.

        Raises:
            PruningError: If the previous block returned too few tensors for a placeholder, or the block changes a
                recorded argument in place.
        """

        def replace_placeholder(leaf: Any) -> Any:
            if not isinstance(leaf, OutputPlaceholder):
                return leaf
            if leaf.number >= len(inputs):
                raise PruningError(
                    f"it is called with output {leaf.number} of the previous block, which returned {len(inputs)} "
                    f"tensor(s) only; load the whole model and prune it in memory",
                    name,
                )
            return inputs[leaf.number].clone()

        # Tensors of `torch.inference_mode` have no version counters.
        recorded = [tensor for tensor in tensors_of((self.arguments, self.keywords)) if not tensor.is_inference()]
        versions = [tensor._version for tensor in recorded]
        arguments, keywords = map_leaves((self.arguments, dict(self.keywords)), replace_placeholder)
        torch.clear_autocast_cache()  # It may have copies of weights from before they were pruned.
        outputs = tensors_of(block(*arguments, **keywords))
        if [tensor._version for tensor in recorded] != versions:
            raise PruningError(CHANGED_ARGUMENT, name)
        return outputs


def tensors_of(tree: Any) -> Tensors:
    """Return the tensors in nested tuples, lists and mappings, in order."""
    return [leaf for leaf in leaves_of(tree) if isinstance(leaf, torch.Tensor)]


def copy_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy of a tensor; like the tensor, it takes no memory for dimensions that repeat the same entries."""
    if tensor.layout != torch.strided or 0 not in tensor.stride():
        return tensor.clone()
    stored = tensor[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in tensor.stride())]
    return stored.clone().expand(tensor.shape)


def map_leaves(tree: Any, change: Callable[[Any], Any]) -> Any:
    """Return nested tuples, lists and dicts with `change(leaf)` for each leaf; other containers are leaves."""
    if type(tree) is dict:
        return {key: map_leaves(value, change) for key, value in tree.items()}
    if type(tree) in (tuple, list):
        return type(tree)(map_leaves(value, change) for value in tree)
    return change(tree)


def leaves_of(tree: Any) -> Iterator[Any]:
    """Yield the leaves of nested tuples, lists and mappings, in order."""
    if isinstance(tree, Mapping):
        tree = list(tree.values())
    if isinstance(tree, (tuple, list)):
        for value in tree:
            yield from leaves_of(value)
    else:
        yield tree
