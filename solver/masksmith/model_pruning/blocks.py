"""Finds the list of blocks that a model runs one after the other, and checks that they can be tuned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from masksmith._errors import PruningError
from masksmith.layouts import plain_path, without_wrappers

Module = torch.nn.Module


@dataclass(frozen=True)
class BlockList:
    """Blocks that a model runs one after the other.

    Attributes:
        path: Name of the list in the model, without the segments of wrappers.
        modules: The blocks.
        keys: Name of each block in the list: its number, or its own name in a `Sequential` made from an `OrderedDict`.
        class_name: Name of the class whose blocks hold the most parameters (of two or more dimensions).
        share: Share of the model's parameters of two or more dimensions that the blocks hold, counted by entries.
    """

    path: str
    modules: Sequence[Module]
    keys: Sequence[str]
    class_name: str
    share: float

    def name(self, number: int) -> str:
        """Return the name of a block in the model."""
        return f"{self.path}.{self.keys[number]}" if self.path else self.keys[number]

    def __str__(self) -> str:
        return f"{len(self.modules)} blocks {self.path or '(the model itself)'} of {self.class_name}, {self.share:.0%}"


def find_blocks(model: Module, path: str | None = None) -> BlockList:
    """Find the list of blocks: the one whose members of one class hold the most parameters (of two or more dimensions).

    Args:
        model: The model.
        path: Name of the list to use instead, such as `model.encoder.layers`; None to choose.

    Raises:
        PruningError: If the model has no such list, `path` is not the name of a non-empty list of modules, or the list
            holds one module several times.
    """
    lists = {plain_path(model, name): module for name, module in model.named_modules() if _is_list(module)}
    if path is not None:
        plain_name = plain_path(model, path)
        if plain_name not in lists:
            raise PruningError(f"blocks={path!r} is not a list of modules; there are {_names_text(lists)}")
        return _block_list(plain_name, lists[plain_name], _size(model))
    sizes = {name: _size_of_largest_class(module) for name, module in lists.items()}
    # A list inside a block is smaller than the list of the blocks, so the list of the blocks is found.
    largest = max(sizes, key=lambda name: sizes[name], default=None)
    if largest is None or sizes[largest] == 0:
        raise PruningError(
            "the model has no list of blocks (a ModuleList or Sequential of two or more modules of one class); "
            "ms.calibrate and ms.reconstruct work on any model"
        )
    return _block_list(largest, lists[largest], _size(model))


def check_differentiable(blocks: BlockList) -> None:
    """Check that blocks can be tuned: none of their parameters was made under `torch.inference_mode`.

    Raises:
        PruningError: If one was; the message names the first.
    """
    for number, block in enumerate(blocks.modules):
        for name, parameter in block.named_parameters():
            if parameter.is_inference():
                raise PruningError(
                    "it was made under torch.inference_mode(), so that it has no gradients to tune its block by; load "
                    "the model outside of torch.inference_mode(), or pass tune_steps=0",
                    f"{blocks.name(number)}.{name}",
                )


def _is_list(module: Module) -> bool:
    return isinstance(module, (torch.nn.ModuleList, torch.nn.Sequential)) and len(module) > 0


def _names_text(lists: dict[str, Module]) -> str:
    return ", ".join(repr(name) for name in lists) or "none at all"


def _block_list(path: str, module: Module, model_size: int) -> BlockList:
    keys, modules = [key for key, _ in module.named_children()], list(module.children())
    # `children` leaves repeated modules out.
    if len(modules) < len(module._modules):
        raise PruningError(f"{path!r} holds one module several times; its blocks share their weights")
    share = _size(module) / model_size if model_size else 0.0
    return BlockList(path, modules, keys, _largest_class(modules)[0].__name__, share)


def _largest_class(modules: Sequence[Module]) -> tuple[type[Module], int]:
    """Return the class whose modules have the largest total size, and that size."""
    sizes: Counter[type[Module]] = Counter()
    for module in modules:
        sizes[type(without_wrappers(module))] += _size(module)
    return sizes.most_common(1)[0]


def _size_of_largest_class(module: Module) -> int:
    """Return the size of all members of the largest class; 0 if it has only one, or cannot be the class of blocks."""
    modules = list(module.children())
    largest, size = _largest_class(modules)
    return size if sum(type(without_wrappers(each)) is largest for each in modules) >= 2 and _is_block(largest) else 0


def _is_block(kind: type[Module]) -> bool:
    """Whether a class can be the class of blocks; a single linear, embedding or convolution layer is not a block."""
    return not issubclass(kind, (torch.nn.Linear, torch.nn.Embedding, torch.nn.modules.conv._ConvNd))


def _size(module: Module) -> int:
    """Count the entries of parameters of two or more dimensions."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.ndim >= 2)
