"""Finds where the stored tensors of a checkpoint are in the parameters of the loaded model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from masksmith_client._errors import InputError
from masksmith_client.checkpoints.choice import ChosenTensor

from .conversions import PieceFollower

if TYPE_CHECKING:
    from masksmith.model_pruning import Part

    from .skeleton import Skeleton

ADVICE = "exclude it, or load the model and prune it with masksmith.prune in Python"


def stored_parts(skeleton: Skeleton, tensors: Iterable[ChosenTensor]) -> dict[str, Part]:
    """Return the part of a parameter that each stored tensor becomes when it is loaded, by the name of the tensor.

    A tensor that becomes a whole parameter of the same name and shape is left out.

    Raises:
        InputError: If a tensor becomes no parameter; if it becomes a whole parameter, but has another shape; if its
            place in the parameter is not known; or if a conversion fails, or gives another shape than that of the
            parameter. The message names the tensor or the parameter.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in skeleton.model.named_parameters()}
    parts: dict[str, Part] = {}
    parts_by_parameter: dict[str, dict[str, Part]] = {}
    for tensor in tensors:
        if shapes.get(tensor.name) == tensor.shape:
            continue
        target = skeleton.stored_tensors.targets.get(tensor.name)
        if target is None or target not in shapes:
            raise InputError(f"{tensor.name!r} is not a parameter of the loaded model; {ADVICE}")
        if tensor.name not in skeleton.stored_tensors.source_patterns:
            parts[tensor.name] = _whole_parameter(tensor, target, shapes[target])
            continue
        if target not in parts_by_parameter:
            parts_by_parameter[target] = _fused_parts(skeleton, target, shapes[target])
        parts[tensor.name] = _checked_part(tensor, target, parts_by_parameter[target])
    return parts


def _whole_parameter(tensor: ChosenTensor, target: str, shape: Sequence[int]) -> Part:
    """Return the part that is the whole parameter `target`; raise `InputError` if the tensor has another shape."""
    from masksmith.model_pruning import Part

    if tensor.shape != shape:
        shapes = f"{list(tensor.shape)}, but {target!r} of the loaded model has {list(shape)}"
        raise InputError(f"{tensor.name!r} has the shape {shapes}; {ADVICE}")
    return Part(target, tensor.shape, torch.empty(tensor.shape, device="meta").stride(), 0)


def _checked_part(tensor: ChosenTensor, target: str, parts: Mapping[str, Part]) -> Part:
    """Return a tensor's part from the known parts of a parameter; raise `InputError` if none of them fits."""
    part = parts.get(tensor.name)
    if part is None or part.shape != tensor.shape:
        reason = f"is converted to {target!r} when the model is loaded, in a way that cannot be inverted exactly"
        raise InputError(f"{tensor.name!r} {reason}; {ADVICE}")
    return part


def _fused_parts(skeleton: Skeleton, target: str, shape: Sequence[int]) -> dict[str, Part]:
    """Return the known parts of a parameter that is converted from stored tensors, by the names of the tensors.

    No part is known if the conversion makes no such parameter, moves entries in an unknown way, or copies a tensor to
    several places. Tensors without entries are left out.

    Raises:
        InputError: If the conversion fails, or gives another shape than that of the parameter.
    """
    from masksmith.model_pruning import Part

    names = [name for name, parameter in skeleton.stored_tensors.targets.items() if parameter == target]
    follower = PieceFollower()
    with torch.no_grad(), follower:
        converter = skeleton.stored_tensors.converter(names[0])
        for name in names:
            tensor = follower.add(name, skeleton.shape(name))
            converter.add_tensor(target, name, skeleton.stored_tensors.source_patterns[name], tensor)
        with skeleton.converting_load_errors(f"parameter {target}"):
            loaded = converter.convert(target, model=skeleton.model, config=skeleton.model.config).get(target)
    loaded = loaded[0] if isinstance(loaded, list) else loaded
    if loaded is None:
        return {}
    if tuple(loaded.shape) != tuple(shape):
        sources = f"{len(names)} tensor(s) such as {names[0]!r}"
        raise InputError(
            f"{target!r} has the shape {list(shape)} in the model, but {list(loaded.shape)} when made of {sources}"
        )
    pieces = follower.pieces(loaded)
    if len({piece.name for piece in pieces}) != len(pieces):  # A stored tensor is in several places.
        return {}
    return {
        piece.name: Part(target, piece.shape, *piece.strides_and_offset(shape))
        for piece in pieces
        if math.prod(piece.shape) > 0
    }
