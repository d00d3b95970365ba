"""State dicts: dense weights with zeros, and the `weight_orig` / `weight_mask` pairs of `torch.nn.utils.prune`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from masksmith._errors import ScoresError
from masksmith._tensors import is_torch
from masksmith.scores.operands import shape_of

ORIGINAL, MASK = "_orig", "_mask"


def dense_state(state: Mapping[str, Any], masks: Mapping[str, Any]) -> dict[str, Any]:
    """Set dropped entries to zero; shapes and dtypes do not change, tensors without a mask are returned as they are.

    Args:
        state: Tensors by name, such as `model.state_dict()`; numpy arrays or torch tensors. Not changed.
        masks: Bool masks by the names of their weights, True = kept.

    Raises:
        ScoresError: If a mask has no tensor, or another shape.
    """
    _check(state, masks)
    return {name: _masked(tensor, masks[name]) if name in masks else tensor for name, tensor in state.items()}


def pruned_state(state: Mapping[str, Any], masks: Mapping[str, Any]) -> dict[str, Any]:
    """Replace each masked weight by two tensors: `NAME_orig`, the unmasked weight, and `NAME_mask`, 1 = kept.

    A mask has the dtype of its weight.

    This is the state dict of a model pruned by `torch.nn.utils.prune`; arguments and errors as in `dense_state`.
    """
    _check(state, masks)
    pruned: dict[str, Any] = {}
    for name, tensor in state.items():
        if name in masks:
            pruned |= {name + ORIGINAL: tensor, name + MASK: _as_numbers(masks[name], tensor)}
        else:
            pruned[name] = tensor
    return pruned


def split_pruned_state(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the state with plain names, and the bool masks: the inverse of `pruned_state`.

    Raises:
        ScoresError: If a `NAME_orig` has no `NAME_mask`.
    """
    masks = {name: state.get(name + MASK) for name in _originals(state)}
    for name, mask in masks.items():
        if mask is None:
            raise ScoresError(f"{name}{ORIGINAL} has no {name}{MASK}", name=name)
    tensors: dict[str, Any] = {}
    for name, tensor in state.items():
        weight_name = name.removesuffix(ORIGINAL)
        if name.endswith(ORIGINAL) and weight_name in masks:
            tensors[weight_name] = tensor
        elif name.removesuffix(MASK) not in masks:
            tensors[name] = tensor
    return tensors, {name: mask != 0 for name, mask in masks.items()}


def _originals(state: Mapping[str, Any]) -> list[str]:
    return [name.removesuffix(ORIGINAL) for name in state if name.endswith(ORIGINAL)]


def _check(state: Mapping[str, Any], masks: Mapping[str, Any]) -> None:
    for name in masks:
        if name not in state:
            raise ScoresError("there is a mask, but no tensor in the state", name=name)
        if shape_of(masks[name]) != shape_of(state[name]):
            raise ScoresError(
                f"mask has shape {list(shape_of(masks[name]))}, the tensor has {list(shape_of(state[name]))}", name=name
            )


def _bools(mask: Any, tensor: Any) -> Any:
    if not is_torch(tensor):
        return np.asarray(mask.detach().cpu() if is_torch(mask) else mask) != 0
    import torch

    return torch.as_tensor(mask).to(tensor.device) != 0


def _masked(tensor: Any, mask: Any) -> Any:
    kept = _bools(mask, tensor)
    if is_torch(tensor):
        return tensor.detach().masked_fill(~kept, 0)
    return np.where(kept, tensor, tensor.dtype.type(0))


def _as_numbers(mask: Any, tensor: Any) -> Any:
    kept = _bools(mask, tensor)
    return kept.to(tensor.dtype) if is_torch(tensor) else kept.astype(tensor.dtype)
