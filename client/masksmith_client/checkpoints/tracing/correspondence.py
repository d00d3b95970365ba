"""Maps a checkpoint's tensors to the parameters that they store, by watching the conversions of `transformers`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .sources import CopyFollower, Source, Sources, storage_id


@dataclass(frozen=True, slots=True)
class Correspondence:
    """Which parameters the tensors of a checkpoint hold.

    Attributes:
        sources: For each tensor whose parameters are certain, the parameters whose entries it holds, in order.
        tied: Of each group of tensors that share memory, stored or not, one is the representative; this maps the names
            of the others to its name.
        shape_mismatches: For each tensor whose shape differs from the one that the config implies, the config's shape,
            by name; without tensors that loading converts to the parameter's shape.
        buffers: Tensors of the checkpoint that are buffers of the model, not parameters.
        missing: Parameters of two dimensions or more whose entries no tensor of `sources` holds, such as those whose
            tensor has another shape.
    """

    sources: dict[str, tuple[Source, ...]]
    tied: dict[str, str]
    shape_mismatches: dict[str, tuple[int, ...]]
    buffers: frozenset[str]
    missing: frozenset[str]


@dataclass(frozen=True, slots=True)
class _SavedTensor:
    """A tensor that `save_pretrained` would write, or that it would leave out because it is tied to another one.

    Attributes:
        shape: Its shape.
        sources: The parameters whose entries it holds.
        location: Where it is in memory; the same for tied tensors.
    """

    shape: tuple[int, ...]
    sources: tuple[Source, ...]
    location: tuple[Any, ...]


def correspondence(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> Correspondence:
    """Find the parameters that a checkpoint's tensors hold.

    Args:
        model: The model on the meta device.
        shapes: Shapes of the checkpoint's tensors, by name.
    """
    saved = _saved_tensors(model)
    to_checkpoint_name = _name_conversion(model, saved, shapes)
    buffers = frozenset(to_checkpoint_name(name) for name, _ in model.named_buffers() if name in saved)
    sources, mismatches = dict[str, tuple[Source, ...]](), dict[str, tuple[int, ...]]()
    for saved_name, tensor in saved.items():
        name = to_checkpoint_name(saved_name)
        if name not in shapes or not tensor.sources:
            continue
        if tuple(shapes[name]) == tensor.shape:
            sources[name] = tensor.sources
        else:
            mismatches[name] = tensor.shape
    loaded_sources = _loaded_sources(model, {name: shape for name, shape in shapes.items() if name not in sources})
    mismatches = {name: shape for name, shape in mismatches.items() if name not in loaded_sources}
    sources |= loaded_sources
    tied = _tied_names(saved, to_checkpoint_name, shapes)
    return Correspondence(sources, tied, mismatches, buffers & shapes.keys(), _missing(model, sources))


def _missing(model: Any, sources: Mapping[str, tuple[Source, ...]]) -> frozenset[str]:
    """Return the parameters of two dimensions or more whose entries no tensor of `sources` holds."""
    held_names = {source.parameter for tensor_sources in sources.values() for source in tensor_sources}
    return frozenset(
        name for name, parameter in model.named_parameters() if parameter.ndim >= 2 and name not in held_names
    )


def _saved_tensors(model: Any) -> dict[str, _SavedTensor]:
    """Return the tensors that `save_pretrained` would write, and those tied to them, by name."""
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
    return {
        name: _SavedTensor(tuple(tensor.shape), follower.sources.of(tensor), _location(tensor))
        for name, tensor in saved.items()
    }


def _location(tensor: torch.Tensor) -> tuple[Any, ...]:
    return storage_id(tensor), tensor.storage_offset(), tuple(tensor.shape), tensor.stride()


def _name_conversion(model: Any, saved: Mapping[str, Any], shapes: Mapping[str, Any]) -> Callable[[str], str]:
    """Return a function that maps names of saved tensors to names in the checkpoint.

    A checkpoint's names may have, or lack, the base model's prefix; of the possible functions, the one that maps
    the most saved tensors to names in the checkpoint is returned.
    """
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    functions: list[Callable[[str], str]] = [lambda name: name]
    if prefix != ".":
        functions += [lambda name: name.removeprefix(prefix), lambda name: prefix + name]
    return max(functions, key=lambda to_checkpoint_name: sum(to_checkpoint_name(name) in shapes for name in saved))


def _loaded_sources(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[Source, ...]]:
    """Return the sources of those tensors of `shapes` that loading turns, each alone, into one whole parameter.

    Tensors for which `_dims_when_loaded` returns None are left out. Versions of `transformers` before 5 convert no
    tensors; the result is then empty.
    """
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, rename_source_key
    except ImportError:
        return {}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    first_names = {id(parameter): name for name, parameter in model.named_parameters()}
    mapping = get_model_conversion_mapping(model)
    converters = [step for step in mapping if isinstance(step, WeightConverter)]
    renamings = [step for step in mapping if not isinstance(step, WeightConverter)]
    sources = dict[str, tuple[Source, ...]]()
    for name, shape in shapes.items():
        target, source_pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, parameters)
        if target not in parameters:
            continue
        converter = next((step for step in converters if source_pattern in step.source_patterns), None)
        dims = _dims_when_loaded(model, converter, name, target, source_pattern, shape)
        if dims is not None:
            sources[name] = (Source(first_names[id(parameters[target])], dims),)
    return sources


def _dims_when_loaded(
    model: Any, converter: Any, name: str, target: str, source_pattern: str | None, shape: tuple[int, ...]
) -> tuple[frozenset[int], ...] | None:
    """Return the parameter's dimensions for each dimension of a stored tensor.

    Args:
        model: The model on the meta device.
        converter: The `WeightConverter` that loading applies to the tensor, or None.
        name: The tensor's name in the checkpoint.
        target: The parameter's name.
        source_pattern: Which of the converter's patterns of names the tensor matches, or None.
        shape: The tensor's shape.

    Returns:
        None if loading does more than to rename the tensor, or to permute, split or merge its dimensions; or if the
        parameter has another shape than the result of loading.
    """
    stored = torch.empty(shape, device="meta")
    # The stored tensor is registered as if it were a parameter: the source of the loaded tensor then says where the
    # dimensions of the stored one went.
    follower = CopyFollower(Sources())
    follower.sources.add_parameter(name, stored)
    loaded: Any = stored
    if converter is not None:
        converter = copy.deepcopy(converter)
        converter.add_tensor(target, name, source_pattern, stored)
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
    # The source maps each dimension of the parameter to dimensions of the stored tensor; the result is the inverse map.
    return tuple(
        frozenset(loaded_dim for loaded_dim, dims in enumerate(loaded_sources[0].dims) if dim in dims)
        for dim in range(len(shape))
    )


def _tied_names(
    saved: Mapping[str, _SavedTensor], to_checkpoint_name: Callable[[str], str], shapes: Mapping[str, Any]
) -> dict[str, str]:
    """Map the names of tensors that share memory to the name of one of them, which is in `shapes` if possible.

    This one is not mapped to itself.
    """
    locations = {to_checkpoint_name(name): tensor.location for name, tensor in saved.items() if tensor.sources}
    name_by_location: dict[Any, str] = {}
    tied = {}
    for name in sorted(locations, key=lambda name: name not in shapes):
        first_name = name_by_location.setdefault(locations[name], name)
        if first_name != name:
            tied[name] = first_name
    return tied
