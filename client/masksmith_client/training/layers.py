"""Select the layers to mask, by name or by default: linear layers, convolutions, attention projections and experts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList

from masksmith.layouts import (
    FLOAT_DTYPES,
    Candidate,
    Layout,
    LayoutError,
    Roles,
    SelectionError,
    is_named_as_layer,
    is_transformers_conv1d,
    plain_path,
    select,
    with_layouts,
)
from masksmith.patterns import Pattern, TilePattern
from masksmith.patterns.matching import Globs
from masksmith_client._errors import InputError, as_input_errors
from masksmith_client.submission.modules import layout_of
from masksmith_client.submission.tensors import SAFETENSORS_DTYPES

from .masked_layer import MaskedLayer
from .masking import Masking
from .methods.method import Method
from .names import paths_by_module
from .shared_weights import shared_axes_reason
from .unsupported import refuse_ddp, refuse_fsdp1, refuse_overlaps, renormalised_reason, unsupported_reason

LAYER_CLASSES = (torch.nn.Linear, torch.nn.modules.conv._ConvNd)
CONTAINERS = (torch.nn.ParameterList, torch.nn.ParameterDict)
ATTENTION_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


@dataclass
class ModelWeight:
    """A weight of a model.

    Attributes:
        parameter: The name of the weight in its modules.
        modules: The modules that use the weight, by path.
        paths: All paths of these modules; a module that is registered several times has several.
        other_names: The modules that hold the weight under another name than `parameter`, by the weight's name there.
    """

    parameter: str
    modules: dict[str, torch.nn.Module] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    other_names: dict[str, torch.nn.Module] = field(default_factory=dict)

    @property
    def module(self) -> torch.nn.Module:
        """The first of the modules."""
        return next(iter(self.modules.values()))

    @property
    def value(self) -> torch.nn.Parameter | None:
        """The weight; None if the module does not hold it under this name, such as with a parametrization."""
        return _own_parameters(self.module).get(self.parameter)

    @property
    def is_layer(self) -> bool:
        """Whether it is the weight of a linear or convolution layer, or an input projection of an attention module."""
        if isinstance(self.module, torch.nn.MultiheadAttention):
            return self.parameter in ATTENTION_WEIGHTS
        return _is_layer(self.module) and self.parameter == "weight"

    @property
    def is_expert(self) -> bool:
        """Whether the weight looks like a stack of experts: three dimensions, and 'expert' in its name or a path."""
        paths = [f"{path}.{self.parameter}".lower() for path in self.modules]
        return self.value is not None and self.value.ndim == 3 and any("expert" in path for path in paths)

    def unsupported_reason(self, name: str) -> str | None:
        """Return why the weight, which has this name, cannot be masked in all modules that hold it; None if it can."""
        holders = [(module, self.parameter) for module in self.modules.values()]
        holders += [(module, other.rpartition(".")[2]) for other, module in self.other_names.items()]
        reasons = (unsupported_reason(module, parameter) for module, parameter in holders)
        reason = next(filter(None, reasons), None)
        other = next((path for path, module in self.other_names.items() if not self._only_lists_it(module)), None)
        if reason is None and other is not None:
            return (
                f"the model also holds it as {other!r}, which a mask of {name!r} does not reach: let both modules have "
                "it under one name, or read it from one of them"
            )
        return reason

    def _only_lists_it(self, module: torch.nn.Module) -> bool:
        """Whether a module is a container that lists the weight of another module, as for groups of an optimizer."""
        return isinstance(module, CONTAINERS) and not isinstance(self.module, CONTAINERS)

    def is_outside_layers(self, name: str) -> bool:
        """Whether it is a matrix that is no layer's weight: it may be used as `x @ w` or as `x @ w.T`.

        Neither the class of its module nor its name shows which of its axes is the input.
        """
        is_matrix = self.value is not None and self.value.ndim == 2
        return is_matrix and not self.is_layer and not is_named_as_layer(name)


def choose(
    model: torch.nn.Module,
    pattern: Pattern,
    method: Method,
    layers: Globs,
    exclude: Globs,
    layouts: Mapping[str, str] | None = None,
    *,
    in_place: bool = False,
) -> tuple[list[MaskedLayer], dict[str, str]]:
    """Select the layers to mask.

    Args:
        model: The model.
        pattern: The pattern of the masks.
        method: The training method of the masked layers.
        layers: Names or globs of layers or weights. Default in a model with blocks: the layers and experts of its
            blocks; default in a model without blocks: experts, and all layers but the first and the last. Defaults
            leave out weights that are dense by their role (`Roles`), such as routers.
        exclude: Names or globs of layers or weights to leave dense.
        layouts: Axes by name of weight; a matrix that is no layer's weight needs them.
        in_place: Whether zeros will be written into the weights.

    Returns:
        The layers, not yet attached; and the reasons of the weights that stay dense, by name.

    Raises:
        InputError: If a name or glob matches nothing, a layer named in full cannot be masked, or no layer remains; if a
            layout is malformed, names no weight or does not match the weight's shape; if a selected weight shares
            memory with another parameter; or if a wrapper of the model does not support masks, or does not support the
            parameters that `method` adds.
    """
    refuse_fsdp1(model)
    if isinstance(layers, (list, tuple)) and not layers:
        raise InputError(f"layers={layers!r} names no layer: leave it out for the default rule")
    weights = find_weights(model)
    dense_reasons = _dense_by_default_reasons(weights)
    candidates = [_candidate(model, name, weight, dense_reasons.get(name)) for name, weight in weights.items()]
    with as_input_errors(LayoutError):
        user_layouts = {name: Layout.parse(axes) for name, axes in (layouts or {}).items()}
        candidates = with_layouts(candidates, user_layouts, _config(model))
    candidates = [_with_shared_axes(candidate, weights[candidate.name], pattern) for candidate in candidates]
    if not in_place:
        candidates = [_with_renormalised_reason(candidate, weights[candidate.name]) for candidate in candidates]
    try:
        selection = select(candidates, pattern, layers, exclude, noun="linear or convolution layer")
    except SelectionError as error:
        if error.kind != "nothing_left" or not weights:
            raise InputError(str(error)) from None
        raise InputError(f"no layer is left to mask with {pattern}: {error}. Name some with layers=") from None
    except TypeError as error:
        raise InputError(
            f"layers={layers!r} and exclude={exclude!r} must be names or lists of names: {error}"
        ) from None
    layout_of_weight = {candidate.name: candidate.layout for candidate in candidates}
    layers_to_mask = [
        _masked_layer(name, weights[name], pattern, method, layout_of_weight[name]) for name in selection.chosen
    ]
    refuse_overlaps(model, [layer.weight for layer in layers_to_mask])
    if any(list(layer.masking.parameters()) for layer in layers_to_mask):
        refuse_ddp(model)
    return layers_to_mask, selection.skipped


def find_weights(model: torch.nn.Module) -> dict[str, ModelWeight]:
    """Return all matrices of a model; a shared matrix is listed once, under its name in a layer if it has one.

    Names are those of the plain model: segments that wrappers add, as `torch.compile` does, are left out.
    """
    matrices = [(path, module, name) for path, module in _own_modules(model) for name in _matrix_names(module)]
    # Layers first: a weight that an embedding shares with an output head is named after the head, which is a layer.
    layers = [matrix for matrix in matrices if _is_layer(matrix[1])]
    others = [matrix for matrix in matrices if not _is_layer(matrix[1])]
    names: dict[int, str] = {}
    weights: dict[str, ModelWeight] = {}
    paths = paths_by_module(model)
    for path, module, parameter in [*layers, *others]:
        value = _own_parameters(module).get(parameter)
        name = ".".join(filter(None, (plain_path(model, path), parameter)))
        name = name if value is None else names.setdefault(id(value), name)
        weight = weights.setdefault(name, ModelWeight(parameter))
        if parameter != weight.parameter:
            weight.other_names[".".join(filter(None, (plain_path(model, path), parameter)))] = module
            continue
        weight.modules[path] = module
        weight.paths += paths[id(module)]
    return weights


def _own_modules(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """Iterate over the modules, without parametrizations and maskings and the modules inside them."""
    skipped_prefixes: list[str] = []
    for path, module in model.named_modules():
        if isinstance(module, ParametrizationList | Masking):
            skipped_prefixes.append(f"{path}.")
        elif not path.startswith(tuple(skipped_prefixes)):
            yield path, module


def _own_parameters(module: torch.nn.Module) -> dict[str, torch.nn.Parameter | None]:
    """Return a module's own parameters by name. `_parameters` is converted, because TorchScript's is not a dict."""
    return dict(module._parameters.items())


def _matrix_names(module: torch.nn.Module) -> list[str]:
    """Return the names of a module's matrices: `weight` if it is a layer, and parameters of two or more dimensions."""
    names = ["weight"] if _is_layer(module) else []
    # Lazy parameters have no dimensions yet.
    matrices = [
        name
        for name, parameter in _own_parameters(module).items()
        if parameter is not None and (name != "bias" if is_lazy(parameter) else parameter.ndim > 1)
    ]
    if names and "weight" not in _own_parameters(module):
        # Weight normalization, for example, stores `weight_g` and `weight_v`: `weight` is listed in their place. It is
        # no parameter of the module, so it stays dense, with a reason.
        matrices = [name for name in matrices if not name.startswith("weight_")]
    return list(dict.fromkeys([*names, *matrices]))


def _is_layer(module: torch.nn.Module) -> bool:
    return isinstance(module, LAYER_CLASSES) or is_transformers_conv1d(module)


def _dense_by_default_reasons(weights: Mapping[str, ModelWeight]) -> dict[str, str]:
    """Return the reason of each weight that stays dense unless the caller names it, by the weight's name.

    These weights are the first and the last layer of a model without blocks, and matrices that are neither the weight
    of a layer nor experts.
    """
    layer_names = [name for name, weight in weights.items() if weight.is_layer]
    reasons = {
        name: f"a parameter of {type(weight.module).__name__}, which is no linear or convolution layer"
        for name, weight in weights.items()
        if not weight.is_layer and not weight.is_expert
    }
    maskable = [name for name in weights if name not in reasons]
    if layer_names and not Roles(list(weights), maskable).has_blocks:
        reasons[layer_names[-1]] = "the last layer stays dense unless it is named"
        reasons[layer_names[0]] = "the first layer stays dense unless it is named"
    return reasons


def _candidate(
    model: torch.nn.Module, name: str, weight: ModelWeight, dense_by_default_reason: str | None
) -> Candidate:
    value, reason = weight.value, weight.unsupported_reason(name)
    aliases = [spelling for path in weight.paths for spelling in _spellings(model, path, weight)]
    aliases += weight.other_names
    if value is None or is_lazy(value):
        return Candidate(
            name, aliases=tuple(aliases), dense_by_default_reason=dense_by_default_reason, unsupported_reason=reason
        )
    dtype = SAFETENSORS_DTYPES.get(str(value.dtype).removeprefix("torch."), str(value.dtype))
    if dtype not in FLOAT_DTYPES:
        reason = reason or f"dtype {value.dtype} cannot be trained with a mask"
    return Candidate(
        name,
        tuple(value.shape),
        dtype,
        aliases=tuple(aliases),
        dense_by_default_reason=dense_by_default_reason,
        only_by_name=not (weight.is_layer or weight.is_expert),
        layout=layout_of(weight.module, value.dim()) if weight.parameter == "weight" else None,
        may_be_convolution=isinstance(weight.module, torch.nn.modules.conv._ConvNd),
        is_outside_layers=weight.is_outside_layers(name),
        unsupported_reason=reason,
    )


def _with_shared_axes(candidate: Candidate, weight: ModelWeight, pattern: Pattern) -> Candidate:
    """Return a candidate with the reason why the modules that share it cannot share a mask, if there is one.

    With a layout of the user there is no such reason: the layout says along which axes the weight is masked.
    """
    is_user_layout = candidate.layout is not None and candidate.layout.rule == "user"
    if weight.value is None or weight.parameter != "weight" or is_user_layout or candidate.unsupported_reason:
        return candidate
    return replace(candidate, unsupported_reason=shared_axes_reason(weight.modules, weight.value, pattern))


def _with_renormalised_reason(candidate: Candidate, weight: ModelWeight) -> Candidate:
    """Return a candidate with the reason why its modules do not allow masked values, if there is one."""
    reason = candidate.unsupported_reason or renormalised_reason(weight.modules.values())
    return replace(candidate, unsupported_reason=reason)


def _spellings(model: torch.nn.Module, path: str, weight: ModelWeight) -> list[str]:
    """Return the names by which a user may select a weight: its module's and its own, with and without wrappers."""
    if not path:
        return []
    plain = plain_path(model, path)
    names = [name for each in (path, plain) if each for name in (each, f"{each}.{weight.parameter}")]
    return list(dict.fromkeys(names))


def _masked_layer(
    name: str, weight: ModelWeight, pattern: Pattern, method: Method, layout: Layout | None
) -> MaskedLayer:
    value = weight.value
    assert value is not None
    needed_layout = None if layout is None or layout.is_plain(pattern, value.shape) else layout
    output_axes = [0] if layout is None else [axis for axis, role in enumerate(layout.axes) if role in ("stack", "out")]
    masking = Masking(method, value, tuple(output_axes))
    return MaskedLayer(name, weight.modules, masking, weight.parameter, _survivor_score(pattern), needed_layout)


def _config(model: torch.nn.Module) -> dict[str, Any] | None:
    """Return the config of a `transformers` model; None for other models."""
    to_dict = getattr(getattr(model, "config", None), "to_dict", None)
    config = to_dict() if callable(to_dict) else None
    return config if isinstance(config, dict) else None


def _survivor_score(pattern: Pattern) -> float:
    """Return a score for entries that must be kept, if all other scores are at most 1."""
    # With tiles it must exceed the sum of all other scores of a tile; without tiles, each single score.
    return 1.0 + pattern.tile.rows * pattern.tile.cols if isinstance(pattern, TilePattern) else 2.0
