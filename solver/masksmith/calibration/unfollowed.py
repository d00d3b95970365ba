"""Finds uses of weights that are neither products nor copies, so that the inputs of the weights are not all known."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from functools import cache
from typing import Any, Generic, TypeVar

import torch
from torch.multiprocessing.reductions import StorageWeakRef

Tensor = torch.Tensor
Weight = TypeVar("Weight", bound=Hashable)

ENTRYWISE_WITHOUT_TAG = ("clone", "_to_copy", "_weight_norm_interface", "copy_")
"""Operations that compute each entry from the same entry of an argument, but do not have torch's tag `pointwise`."""
LOOKUPS = ("embedding", "embedding_bag", "_embedding_bag", "_embedding_bag_forward_only")
"""Operations that read rows of a weight, which is often also the weight of an output head."""


class UnfollowedUses(Generic[Weight]):
    """Finds operations through which a weight has an effect that products with the weight do not show.

    A tensor that is computed from weights alone, or entry by entry, is remembered: an operation on it and on other
    tensors uses these weights. A result with fewer entries than the weights, such as a norm, is not remembered.

    Args:
        weights_in: Returns the weights that a tensor is known to contain: it is in their memory, or a copy of them.
    """

    def __init__(self, weights_in: Callable[[Tensor], Collection[Weight]]) -> None:
        self._weights_in = weights_in
        self._derived: dict[int, set[Weight]] = {}  # by the identity of the storage
        # While a weak reference exists, no new storage gets the same identity.
        self._storages: list[StorageWeakRef] = []

    def find(
        self, func: Any, arguments: Sequence[Tensor], results: Sequence[Tensor], multiplied: Collection[Tensor] = ()
    ) -> set[Weight]:
        """Return the weights that an operation uses in a way that cannot be followed.

        Args:
            func: The operation.
            arguments: Its tensors.
            results: The tensors that it returned.
            multiplied: The arguments whose known weights the caller has treated as operands of a product.
        """
        sources = [(each, weights) for each in arguments if (weights := self._weights_of(each, multiplied))]
        name, is_entrywise = operation_kind(func)
        if not sources or name in LOOKUPS or name.endswith("_like") or name.startswith("new_"):
            return set()
        storages = {storage_id(each) for each, _ in sources}
        new = [
            each
            for each in results
            if each.dtype != torch.bool and storage_id(each) is not None and storage_id(each) not in storages
        ]
        weights = set[Weight]().union(*(each for _, each in sources))
        others = [each for each in arguments if not self._is_from_weights(each)]
        shapes = [each.shape for each, _ in sources]
        if others and not (is_entrywise and all(each.shape in shapes for each in new)):
            # A single number computed from a weight and tensors of its shape is a term of the loss, such as a distance.
            is_term = all(each.shape in shapes for each in others) and all(each.numel() == 1 for each in new)
            return weights if new and not is_term else set()
        for result in new:
            if result.numel() >= min(each.numel() for each, _ in sources):
                self._remember(result, weights)
        return set()

    def _weights_of(self, tensor: Tensor, multiplied: Collection[Tensor]) -> set[Weight]:
        storage = storage_id(tensor)
        if storage is None:
            return set()
        derived = self._derived.get(storage, set[Weight]())
        return derived if any(tensor is each for each in multiplied) else derived.union(self._weights_in(tensor))

    def _is_from_weights(self, tensor: Tensor) -> bool:
        return bool(self._weights_of(tensor, ()))

    def _remember(self, tensor: Tensor, weights: set[Weight]) -> None:
        """Store which weights a tensor is computed from, except those that it is known to contain."""
        storage, unknown = storage_id(tensor), weights.difference(self._weights_in(tensor))
        if storage is not None and unknown:
            if storage not in self._derived:
                self._storages.append(StorageWeakRef(tensor.untyped_storage()))  # type: ignore[no-untyped-call]
            self._derived.setdefault(storage, set()).update(unknown)


def operation_name(func: Any) -> str:
    """Return an operation's name without its namespace; empty for operators such as `flex_attention`."""
    return str(func._schema.name).rpartition("::")[2] if hasattr(func, "_schema") else ""


@cache
def operation_kind(func: Any) -> tuple[str, bool]:
    """Return an operation's name, and whether it computes each entry from the same entry of its arguments."""
    name = operation_name(func)
    tags = getattr(func, "tags", ())
    return name, name in ENTRYWISE_WITHOUT_TAG or name.startswith("fake_quantize") or torch.Tag.pointwise in tags


def unfollowed_reason(func: Any) -> str:
    """Return why the inputs of a weight that an operation uses are not all known."""
    return f"it, or a tensor computed from it, is used by {operation_name(func) or func}, which cannot be followed"


def storage_id(tensor: Tensor) -> int | None:
    """Return the identity of a tensor's storage; None for tensors without storage, such as sparse ones, or entries."""
    if tensor.layout != torch.strided or tensor.is_nested or tensor.numel() == 0:
        return None
    try:
        return int(tensor.untyped_storage()._cdata)
    except RuntimeError:  # some subclasses, and tensors within transforms of `torch.func`
        return None
