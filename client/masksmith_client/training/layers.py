"""Select the layers to mask: linear layers, convolutions, attention projections and experts, by the default rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList

from masksmith.layouts import FLOAT_DTYPES, Candidate, Layout, Roles, SelectionError, is_conv1d, select, with_layouts
from masksmith.patterns import Pattern, TilePattern
from masksmith.patterns.matching import Globs
from masksmith_client._errors import InputError
from masksmith_client.submission.modules import layout_of
from masksmith_client.submission.tensors import SAFETENSORS_DTYPES

from .masked_layer import MaskedLayer
from .masking import Masking
from .methods.method import Method
from .names import plain_path
from .unsupported import refuse_ddp, refuse_fsdp1, unsupported_reason

KINDS = (torch.nn.Linear, torch.nn.modules.conv._ConvNd)
ATTENTION_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


@dataclass
class ModelWeight:
    """A weight of a model, and the modules that use it, by path."""

    parameter: str
    modules: dict[str, torch.nn.Module] = field(default_factory=dict)

    @property
    def module(self) -> torch.nn.Module:
        """The first of the modules."""
        return next(iter(self.modules.values()))

    @property
    def value(self) -> torch.nn.Parameter | None:
        """The weight; None if it is stored otherwise, as by a parametrization."""
        return self.module._parameters.get(self.parameter)

    @property
    def is_layer(self) -> bool:
        """Whether it is the weight of a layer: multiplied with the layer's inputs."""
        if isinstance(self.module, torch.nn.MultiheadAttention):
            return self.parameter in ATTENTION_WEIGHTS
        return _is_layer(self.module) and self.parameter == "weight"

    @property
    def is_expert(self) -> bool:
        """Whether it is a stack of experts."""
        paths = [f"{path}.{self.parameter}".lower() for path in self.modules]
        return self.value is not None and self.value.ndim == 3 and any("expert" in path for path in paths)


def choose(
    model: torch.nn.Module, pattern: Pattern, method: Method, layers: Globs, exclude: Globs
) -> tuple[list[MaskedLayer], dict[str, str]]:
    """Select the layers to mask.

    Args:
        model: The model.
        pattern: The pattern of the masks.
        method: The training method of the masked layers.
        layers: Names or globs of layers or weights; default all matrices of the model's blocks, and without blocks all
            layers but the first and the last.
        exclude: Names or globs to leave out.

    Returns:
        The layers, not yet attached; and the weights left dense, with the reason.

    Raises:
        InputError: If a name or glob matches nothing, a layer named in full cannot be masked, or no layer remains.
    """
    refuse_fsdp1(model)
    if layers is not None and not isinstance(layers, str) and list(layers) == []:
        raise InputError(f"layers={layers!r} names no layer: leave it out for the default rule")
    weights = find_weights(model)
    dense = _first_and_last(weights)
    candidates = [_candidate(name, weight, dense.get(name)) for name, weight in weights.items()]
    try:
        candidates = with_layouts(candidates, config=_config(model))
        selection = select(candidates, pattern, layers, exclude, noun="linear or convolution layer")
    except SelectionError as error:
        if error.kind != "nothing_left" or not weights:
            raise InputError(str(error)) from None
        raise InputError(f"no layer is left to mask with {pattern}: {error}. Name some with layers=") from None
    except TypeError as error:
        raise InputError(
            f"layers={layers!r} and exclude={exclude!r} must be names or lists of names: {error}"
        ) from None
    layouts = {candidate.name: candidate.layout for candidate in candidates}
    layers_to_mask = [_masked_layer(name, weights[name], pattern, method, layouts[name]) for name in selection.chosen]
    if any(list(layer.masking.parameters()) for layer in layers_to_mask):
        refuse_ddp(model)
    return layers_to_mask, selection.skipped


def find_weights(model: torch.nn.Module) -> dict[str, ModelWeight]:
    """Return all matrices of a model; a shared one is listed under its first name.

    Names are those of the plain model: segments that wrappers add, as `torch.compile` does, are left out.
    """
    matrices = [(path, module, name) for path, module in _own_modules(model) for name in _matrix_names(module)]
    # An embedding that shares its weight with a head is named after the head, which is a layer.
    matrices.sort(key=lambda each: not _is_layer(each[1]))
    names: dict[int, str] = {}
    weights: dict[str, ModelWeight] = {}
    for path, module, parameter in matrices:
        value = module._parameters.get(parameter)
        name = ".".join(filter(None, (plain_path(model, path), parameter)))
        name = name if value is None else names.setdefault(id(value), name)
        weights.setdefault(name, ModelWeight(parameter)).modules[path] = module
    return weights


def _own_modules(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """Iterate over the modules, without those of parametrizations and masks."""
    others: list[str] = []
    for path, module in model.named_modules():
        if isinstance(module, ParametrizationList | Masking):
            others.append(f"{path}.")
        elif not path.startswith(tuple(others)):
            yield path, module


def _matrix_names(module: torch.nn.Module) -> list[str]:
    names = ["weight"] if _is_layer(module) else []
    matrices = [
        name
        for name, each in module._parameters.items()
        if each is not None and (name != "bias" if is_lazy(each) else each.ndim > 1)
    ]
    if names and "weight" not in module._parameters:
        # The weight is stored under other names, as by weight normalization; the layer is listed, with the reason.
        matrices = [name for name in matrices if not name.startswith("weight_")]
    return list(dict.fromkeys([*names, *matrices]))


def _is_layer(module: torch.nn.Module) -> bool:
    return isinstance(module, KINDS) or is_conv1d(module)


def _first_and_last(weights: Mapping[str, ModelWeight]) -> dict[str, str]:
    """Return reasons for the first and the last layer of a model without blocks, and for parameters of no layer."""
    names = [name for name, weight in weights.items() if weight.is_layer]
    other = "a parameter of {}, which is no linear or convolution layer"
    dense = {
        name: other.format(type(weight.module).__name__)
        for name, weight in weights.items()
        if not weight.is_layer and not weight.is_expert
    }
    if names and not Roles(list(weights)).has_blocks:
        reason = "the {} layer stays dense unless it is named"
        dense |= {names[-1]: reason.format("last"), names[0]: reason.format("first")}
    return dense


def _candidate(name: str, weight: ModelWeight, dense_by_default: str | None) -> Candidate:
    value, reason = weight.value, unsupported_reason(weight.module, weight.parameter)
    aliases = [spelling for path in weight.modules for spelling in _spellings(path, weight)]
    if value is None or is_lazy(value):
        return Candidate(name, aliases=tuple(aliases), dense_by_default=dense_by_default, unsupported_reason=reason)
    dtype = SAFETENSORS_DTYPES.get(str(value.dtype).removeprefix("torch."), str(value.dtype))
    if dtype not in FLOAT_DTYPES:
        reason = reason or f"dtype {value.dtype} cannot be trained with a mask"
    return Candidate(
        name,
        tuple(value.shape),
        dtype,
        aliases=tuple(aliases),
        dense_by_default=dense_by_default,
        only_by_name=not (weight.is_layer or weight.is_expert),
        layout=layout_of(weight.module, value.dim()) if weight.parameter == "weight" else None,
        may_be_convolution=isinstance(weight.module, torch.nn.modules.conv._ConvNd),
        unsupported_reason=reason,
    )


def _spellings(path: str, weight: ModelWeight) -> list[str]:
    if not path:
        return []
    plain = plain_path(None, path)
    return list(dict.fromkeys([path, f"{path}.{weight.parameter}", plain, f"{plain}.{weight.parameter}"]))


def _masked_layer(
    name: str, weight: ModelWeight, pattern: Pattern, method: Method, layout: Layout | None
) -> MaskedLayer:
    value = weight.value
    assert value is not None
    own = None if layout is None or layout.is_plain(pattern, value.shape) else layout
    masking = Masking(method, value)
    return MaskedLayer(name, weight.modules, masking, weight.parameter, _survivor_score(pattern), own)


def _config(model: torch.nn.Module) -> dict[str, Any] | None:
    """Return the config of a `transformers` model."""
    to_dict = getattr(getattr(model, "config", None), "to_dict", None)
    config = to_dict() if callable(to_dict) else None
    return config if isinstance(config, dict) else None


def _survivor_score(pattern: Pattern) -> float:
    # With tiles the score must exceed the sum of all other scores of a tile; without tiles, each single score.
    return 1.0 + pattern.tile.rows * pattern.tile.cols if isinstance(pattern, TilePattern) else 2.0
