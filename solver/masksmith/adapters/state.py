"""State dicts: dense weights with zeros, and the `weight_orig` / `weight_mask` pairs of `torch.nn.utils.prune`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from masksmith._errors import ScoresError
from masksmith._tensors import as_torch, check_has_zero, is_torch, with_zeros
from masksmith.scores.operands import read_statistic, read_weight, shape_of

ORIGINAL, MASK = "_orig", "_mask"


def dense_state(state: Mapping[str, Any], masks: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state with zeros in dropped entries; shapes, dtypes and tensors without a mask are unchanged.

    Args:
        state: Tensors by name, such as `model.state_dict()`; numpy arrays or torch tensors. Not changed.
        masks: Bool masks by the names of their weights, True = kept.

    Raises:
        ScoresError: If a mask has no tensor, or another shape than its tensor; or if a tensor with a mask, or the mask,
            is no dense array of real numbers, such as a quantised or sparse tensor.
    """
    tensors, masks = _read_masks(state, masks)
    return {
        name: _masked(tensors[name], masks[name], name) if name in masks else tensor for name, tensor in state.items()
    }


def pruned_state(state: Mapping[str, Any], masks: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state with two tensors for each masked weight: `NAME_orig`, unmasked, and `NAME_mask`, 1 = kept.

    A mask has the dtype of its weight.

    This is the state dict of a model pruned by `torch.nn.utils.prune`; arguments and errors as in `dense_state`. It is
    also an error if the state has a `NAME_orig` or `NAME_mask` already.
    """
    tensors, masks = _read_masks(state, masks)
    for name in (weight_name + suffix for weight_name in masks for suffix in (ORIGINAL, MASK)):
        if name in state:
            raise ScoresError("the state has a tensor of this name already: rename or remove it", name=name)
    pruned: dict[str, Any] = {}
    for name, tensor in state.items():
        if name in masks:
            pruned |= {name + ORIGINAL: tensor, name + MASK: _numbers_like(masks[name], tensors[name])}
        else:
            pruned[name] = tensor
    return pruned


def split_pruned_state(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the state with plain names, and the bool masks by these names: the inverse of `pruned_state`.

    Raises:
        ScoresError: If a `NAME_orig` has no `NAME_mask`, or stands beside a `NAME`.
    """
    masks = {name: state.get(name + MASK) for name in _original_names(state)}
    for name, mask in masks.items():
        if mask is None:
            raise ScoresError(f"{name}{ORIGINAL} has no {name}{MASK}", name=name)
        if name in state:
            raise ScoresError(f"it stands beside {name}{ORIGINAL}, which becomes {name}: remove one of them", name=name)
    tensors: dict[str, Any] = {}
    for name, tensor in state.items():
        weight_name = name.removesuffix(ORIGINAL)
        if name.endswith(ORIGINAL):
            tensors[weight_name] = tensor
        elif name.removesuffix(MASK) not in masks:
            tensors[name] = tensor
    return tensors, {name: mask != 0 for name, mask in masks.items()}


def _original_names(state: Mapping[str, Any]) -> list[str]:
    """Return the plain names of the weights that are stored as `NAME_orig`."""
    return [name.removesuffix(ORIGINAL) for name in state if name.endswith(ORIGINAL)]


def _read_masks(state: Mapping[str, Any], masks: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tensors that have masks, and their masks, all as arrays or tensors that can be read."""
    tensors, read_masks = dict[str, Any](), dict[str, Any]()
    for name, mask in masks.items():
        if name not in state:
            raise ScoresError("there is a mask, but no tensor in the state", name=name)
        tensors[name] = read_weight(state[name], name)
        read_masks[name] = read_statistic(mask, "the mask", name)
        if shape_of(read_masks[name]) != shape_of(tensors[name]):
            raise ScoresError(
                f"mask has shape {list(shape_of(read_masks[name]))}, the tensor has {list(shape_of(tensors[name]))}",
                name=name,
            )
    return tensors, read_masks


def _bools_like(mask: Any, tensor: Any) -> Any:
    """Return a mask as bools, in the library (numpy or torch) and on the device of its tensor."""
    if not is_torch(tensor):
        return np.asarray(mask.cpu() if is_torch(mask) else mask) != 0
    return as_torch(mask).to(tensor.device) != 0


def _masked(tensor: Any, mask: Any, name: str) -> Any:
    kept = _bools_like(mask, tensor)
    if is_torch(tensor):
        return with_zeros(tensor, kept, name)
    check_has_zero(tensor, name)
    return np.where(kept, tensor, tensor.dtype.type(0))


def _numbers_like(mask: Any, tensor: Any) -> Any:
    """Return a mask as numbers, 1 = kept, with the dtype and on the device of its tensor."""
    kept = _bools_like(mask, tensor)
    return kept.to(tensor.dtype) if is_torch(tensor) else kept.astype(tensor.dtype)
