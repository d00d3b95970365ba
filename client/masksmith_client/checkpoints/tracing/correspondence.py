"""Map a checkpoint's tensors to the parameters that they store, by watching the model's own save and load code."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .sources import CopyFollower, Source, Sources, storage_of


@dataclass(frozen=True, slots=True)
class Correspondence:
    """Which parameters the tensors of a checkpoint hold.

    Attributes:
        sources: For each tensor, the parameters whose entries it holds, in order.
        tied: For each name, stored or not, of a tensor that shares its memory with another: the name of that one.
        contradicted: For each tensor whose shape differs from the config's: the config's shape.
        buffers: Tensors that are buffers of the model, not parameters.
        missing: Parameters of two dimensions or more that the checkpoint does not have under any name.
    """

    sources: dict[str, tuple[Source, ...]]
    tied: dict[str, str]
    contradicted: dict[str, tuple[int, ...]]
    buffers: frozenset[str]
    missing: frozenset[str]


def correspondence(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> Correspondence:
    """Find the sources of a checkpoint's tensors. A tensor that is missing in the result has no certain source.

    Args:
        model: The model on the meta device.
        shapes: The checkpoint's tensors.
    """
    saved, locations = _saved(model)
    spelling = _spelling(model, saved, shapes)
    buffers = frozenset(spelling(name) for name, _ in model.named_buffers() if name in saved)
    sources, contradicted = dict[str, tuple[Source, ...]](), dict[str, tuple[int, ...]]()
    for name, (shape, tensor_sources) in saved.items():
        stored = spelling(name)
        if stored not in shapes or not tensor_sources:
            continue
        if tuple(shapes[stored]) == shape:
            sources[stored] = tensor_sources
        else:
            contradicted[stored] = shape
    loaded = _loaded(model, {name: shape for name, shape in shapes.items() if name not in sources})
    contradicted = {name: shape for name, shape in contradicted.items() if name not in loaded}
    sources |= loaded
    return Correspondence(
        sources, _tied(locations, spelling, shapes), contradicted, buffers & shapes.keys(), _missing(model, sources)
    )


def _missing(model: Any, sources: Mapping[str, tuple[Source, ...]]) -> frozenset[str]:
    """Return the matrices that no tensor stores."""
    stored = {source.parameter for tensor_sources in sources.values() for source in tensor_sources}
    return frozenset(name for name, each in model.named_parameters() if each.ndim >= 2 and name not in stored)


def _saved(model: Any) -> tuple[dict[str, tuple[tuple[int, ...], tuple[Source, ...]]], dict[str, Any]]:
    """Return the shapes and sources of the tensors that `save_pretrained` would write, and where they are in memory."""
    follower = CopyFollower(Sources())
    for name, tensor in model.named_parameters(remove_duplicate=False):
        follower.sources.add_parameter(name, tensor)
    state = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, torch.Tensor)}
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # before version 5, parameters were saved as they are
        saved = state
    else:
        with torch.no_grad(), follower:
            saved = revert_weight_conversion(model, dict(state))
    with_sources = {name: (tuple(tensor.shape), follower.sources.of(tensor)) for name, tensor in saved.items()}
    return with_sources, {name: _location(tensor) for name, tensor in saved.items() if with_sources[name][1]}


def _location(tensor: torch.Tensor) -> tuple[Any, ...]:
    return storage_of(tensor), tensor.storage_offset(), tuple(tensor.shape), tensor.stride()


def _spelling(model: Any, saved: Mapping[str, Any], shapes: Mapping[str, Any]) -> Any:
    """Return a function from saved names to names in the checkpoint, which add or omit the base model's prefix."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    spellings = [lambda name: name]
    if prefix != ".":
        spellings += [lambda name: name.removeprefix(prefix), lambda name: prefix + name]
    return max(spellings, key=lambda spell: sum(spell(name) in shapes for name in saved))


def _loaded(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[Source, ...]]:
    """Find tensors that `from_pretrained` renames or permutes, each of them to one parameter."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, rename_source_key
    except ImportError:
        return {}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    first_names = {id(each): name for name, each in model.named_parameters()}
    mapping = get_model_conversion_mapping(model)
    converters = [each for each in mapping if isinstance(each, WeightConverter)]
    renamings = [each for each in mapping if not isinstance(each, WeightConverter)]
    sources = dict[str, tuple[Source, ...]]()
    for name, shape in shapes.items():
        target, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, parameters)
        if target not in parameters:
            continue
        converter = next((each for each in converters if pattern in each.source_patterns), None)
        dims = _dims_when_loaded(model, converter, (name, target, pattern), shape)
        if dims is not None:
            sources[name] = (Source(first_names[id(parameters[target])], dims),)
    return sources


def _dims_when_loaded(
    model: Any, converter: Any, names: tuple[str, str, str | None], shape: tuple[int, ...]
) -> tuple[frozenset[int], ...] | None:
    """Return the parameter's dimensions for each dimension of a stored tensor; None if loading does something else."""
    name, target, pattern = names
    stored = torch.empty(shape, device="meta")
    follower = CopyFollower(Sources())
    follower.sources.add_parameter(name, stored)
    loaded: Any = stored
    if converter is not None:
        converter = copy.deepcopy(converter)
        converter.add_tensor(target, name, pattern, stored)
        try:
            with torch.no_grad(), follower:
                loaded = converter.convert(target, model=model, config=model.config)[target]
        except Exception:  # noqa: BLE001 - a conversion that needs several tensors may raise anything
            return None
        loaded = loaded[0] if isinstance(loaded, list) else loaded
    loaded_sources = follower.sources.of(loaded)
    if (
        len(loaded_sources) != 1
        or loaded.shape != model.get_parameter(target).shape
        or loaded.numel() != stored.numel()
    ):
        return None
    return tuple(
        frozenset(loaded_dim for loaded_dim, dims in enumerate(loaded_sources[0].dims) if dim in dims)
        for dim in range(len(shape))
    )


def _tied(locations: Mapping[str, Any], spelling: Any, shapes: Mapping[str, Any]) -> dict[str, str]:
    """Map the names of tensors that share memory to one of them, which is stored in the checkpoint if any is."""
    first: dict[Any, str] = {}
    tied = {}
    for name in sorted(locations, key=lambda name: spelling(name) not in shapes):
        target = first.setdefault(locations[name], name)
        if target != name:
            tied[spelling(name)] = spelling(target)
    return tied
