"""Converts arguments of calls to JSON and back; tensors are stored beside it, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from masksmith._errors import PruningError

from .calls import OutputPlaceholder

PLAIN = (bool, int, float, str, type(None))


class Encoder:
    """Encodes nested arguments; a tensor that occurs several times is stored once.

    Attributes:
        tensors: The tensors by name.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._names: dict[int, str] = {}

    def encode(self, value: Any, block: str) -> Any:
        """Return a value as JSON.

        Raises:
            PruningError: If it contains a value of another class than JSON, tensors, tuples and lists.
        """
        if isinstance(value, torch.Tensor):
            name = self._names.setdefault(id(value), str(len(self._names)))
            self.tensors[name] = value
            return {"tensor": name}
        if isinstance(value, OutputPlaceholder):
            return {"output": value.number}
        if type(value) in (tuple, list):
            return {type(value).__name__: [self.encode(each, block) for each in value]}
        if type(value) is dict:
            return {"dict": [[self.encode(part, block) for part in pair] for pair in value.items()]}
        if type(value) in PLAIN:
            return {"value": value}
        reason = f"it is called with an argument of {type(value).__name__}, which cannot be written to a file"
        raise PruningError(f"{reason}; load the whole model and prune it in memory", block)


class Decoder:
    """Decodes a result of `Encoder.encode`.

    Attributes:
        names: Names of its tensors.
    """

    def __init__(self, tree: Any) -> None:
        self._tree = tree
        self.names: set[str] = set()
        self._collect(tree)

    def decode(self, tensors: Mapping[str, torch.Tensor]) -> Any:
        """Return the value; `tensors` has its tensors by name."""
        return _decoded(self._tree, tensors)

    def _collect(self, tree: Any) -> None:
        ((kind, content),) = tree.items()
        if kind == "tensor":
            self.names.add(content)
        elif kind in ("tuple", "list"):
            for each in content:
                self._collect(each)
        elif kind == "dict":
            for pair in content:
                for each in pair:
                    self._collect(each)


def _decoded(tree: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    ((kind, content),) = tree.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "output":
        return OutputPlaceholder(content)
    if kind == "tuple":
        return tuple(_decoded(each, tensors) for each in content)
    if kind == "list":
        return [_decoded(each, tensors) for each in content]
    if kind == "dict":
        return {_decoded(key, tensors): _decoded(value, tensors) for key, value in content}
    return content
