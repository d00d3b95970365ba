"""Converts arguments of calls to trees for JSON and back; a tree has the names of tensors, not the tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from masksmith._errors import PruningError

from .calls import OutputPlaceholder
from .tensor_files import IN_MEMORY, unwritable_kind

PLAIN = (bool, int, float, str, type(None))
"""Classes of values that are written to JSON as they are."""


class Encoder:
    """Encodes nested arguments; a tensor that occurs several times has one name.

    Attributes:
        tensors: The tensors of all encoded values, by name.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._names: dict[int, str] = {}

    def encode(self, value: Any, block: str) -> Any:
        """Return a value as a tree of dicts, lists and plain values, for JSON.

        Args:
            value: A tensor, an `OutputPlaceholder`, a value of the classes `PLAIN`, or nested tuples, lists and dicts
                of these.
            block: Name of the block in error messages.

        Raises:
            PruningError: If the value contains anything else.
        """
        kind = unwritable_kind(value) if isinstance(value, torch.Tensor) else f"an argument of {type(value).__name__}"
        if kind is None:
            name = self._names.setdefault(id(value), str(len(self._names)))
            self.tensors[name] = value
            return {"tensor": name}
        if isinstance(value, OutputPlaceholder):
            return {"output": value.number}
        if type(value) in (tuple, list):
            return {type(value).__name__: [self.encode(item, block) for item in value]}
        if type(value) is dict:
            return {"dict": [[self.encode(key, block), self.encode(item, block)] for key, item in value.items()]}
        if type(value) in PLAIN:
            return {"value": value}
        raise PruningError(f"it is called with {kind}, which cannot be written to a file; {IN_MEMORY}", block)


class Decoder:
    """Decodes a tree that `Encoder.encode` returned.

    Args:
        tree: The tree, also after it was written to JSON and read.

    Attributes:
        names: Names of the tensors that the encoded value contains.
    """

    def __init__(self, tree: Any) -> None:
        self._tree = tree
        self.names: set[str] = set()
        self._collect_names(tree)

    def decode(self, tensors: Mapping[str, torch.Tensor]) -> Any:
        """Return the value; `tensors` are those of `names`, by name."""
        return _decoded(self._tree, tensors)

    def _collect_names(self, tree: Any) -> None:
        ((kind, content),) = tree.items()
        if kind == "tensor":
            self.names.add(content)
        elif kind in ("tuple", "list"):
            for item in content:
                self._collect_names(item)
        elif kind == "dict":
            for key, item in content:
                self._collect_names(key)
                self._collect_names(item)


def _decoded(tree: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    ((kind, content),) = tree.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "output":
        return OutputPlaceholder(content)
    if kind == "tuple":
        return tuple(_decoded(item, tensors) for item in content)
    if kind == "list":
        return [_decoded(item, tensors) for item in content]
    if kind == "dict":
        return {_decoded(key, tensors): _decoded(item, tensors) for key, item in content}
    return content
