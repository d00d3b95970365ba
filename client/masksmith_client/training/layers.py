"""Select the layers to mask: linear and convolution layers, by name, or by the default rule of `masksmith.layouts`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from masksmith.layouts import FLOAT_DTYPES, Candidate, Layout, Roles, SelectionError, is_conv1d, select, with_layouts
from masksmith.patterns import Pattern, TilePattern
from masksmith.patterns.matching import Globs
from masksmith_client._errors import InputError
from masksmith_client.submission.modules import layout_of
from masksmith_client.submission.tensors import SAFETENSORS_DTYPES

from .masked_layer import MaskedLayer
from .masking import Masking
from .methods.method import Method
from .sharding import is_sharded
from .wrappers import plain_name

ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
KINDS = (torch.nn.Linear, torch.nn.modules.conv._ConvNd)


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
    weights = _find_weights(model)
    # In a model with blocks the names show what is outside of them; else the first and the last layer stay dense.
    count = 0 if Roles(list(weights)).has_blocks else len(weights)
    candidates = [_candidate(name, weight, index, count) for index, (name, weight) in enumerate(weights.items())]
    try:
        candidates = with_layouts(candidates)
        selection = select(candidates, pattern, layers, exclude, noun="linear or convolution layer")
    except SelectionError as error:
        if error.kind != "nothing_left" or not weights:
            raise InputError(str(error)) from None
        raise InputError(f"no layer is left to mask with {pattern}: {error}. Name some with layers=") from None
    layouts = {candidate.name: candidate.layout for candidate in candidates}
    layers_to_mask = [_masked_layer(name, weights[name], pattern, method, layouts[name]) for name in selection.chosen]
    return layers_to_mask, selection.skipped


@dataclass(frozen=True)
class _Weight:
    """A weight that may be masked: the modules that hold it by path, and its name in them."""

    modules: dict[str, torch.nn.Module]
    attribute: str

    @property
    def module(self) -> torch.nn.Module:
        return next(iter(self.modules.values()))

    @property
    def tensor(self) -> object:
        return getattr(self.module, self.attribute, None)


def _candidate(name: str, found: _Weight, index: int, count: int) -> Candidate:
    aliases = tuple(spelling for path in found.modules if path for spelling in _spellings(path, found.attribute))
    reason = _unsupported_reason(found)
    if reason is not None:
        return Candidate(name, aliases=aliases, unsupported_reason=reason)
    weight = found.module.get_parameter(found.attribute)
    return Candidate(
        name,
        tuple(weight.shape),
        SAFETENSORS_DTYPES.get(str(weight.dtype).removeprefix("torch."), str(weight.dtype)),
        aliases=aliases,
        dense_by_default=_dense_by_default(index, count),
        layout=_layout(found),
    )


def _spellings(path: str, attribute: str) -> list[str]:
    plain = plain_name(path)
    return [spelling for one in (path, plain) if one for spelling in (one, f"{one}.{attribute}")]


def _unsupported_reason(found: _Weight) -> str | None:
    """Return why a weight cannot be masked, or None; its values, shape and dtype are not used before."""
    module, weight = found.module, found.tensor
    if parametrize.is_parametrized(module, found.attribute):
        return "the weight is parametrized already: bake or remove the parametrization first"
    if not isinstance(weight, torch.nn.Parameter):
        return "the weight is not a parameter but computed from others, as by pruning or weight_norm: remove that first"
    if is_lazy(weight):
        return "the weight is not initialized (a lazy layer): run the model once first"
    if weight.is_meta:
        return "the weight has no data (it is on the meta device): load or initialize it first"
    if is_sharded(weight):
        return "the weight is sharded already: create the Sparsifier before fully_shard()"
    if weight.numel() == 0:
        is_zero = hasattr(weight, "ds_id")
        return "ZeRO-3 keeps its data elsewhere: use ZeRO-2 or fully_shard()" if is_zero else "the weight is empty"
    if SAFETENSORS_DTYPES.get(str(weight.dtype).removeprefix("torch.")) not in FLOAT_DTYPES:
        return f"dtype {weight.dtype} cannot be trained with a mask"
    if isinstance(module, torch.nn.modules.conv._ConvTransposeNd) and module.groups > 1:
        return "a transposed convolution of several groups"
    return None


def _layout(found: _Weight) -> Layout | None:
    if isinstance(found.module, torch.nn.MultiheadAttention):
        return None  # Its projections are matrices [out, in].
    return layout_of(found.module, found.module.get_parameter(found.attribute).dim())


def _dense_by_default(index: int, count: int) -> str | None:
    if count == 0 or index not in (0, count - 1):
        return None
    return f"the {'first' if index == 0 else 'last'} layer stays dense unless it is named"


def _masked_layer(name: str, found: _Weight, pattern: Pattern, method: Method, layout: Layout | None) -> MaskedLayer:
    weight = found.module.get_parameter(found.attribute)
    own = None if layout is None or layout.is_plain(pattern, weight.shape) else layout
    masking = Masking(method, weight)
    return MaskedLayer(name, found.modules, masking, _rank_above(pattern), own, found.attribute)


def _find_weights(model: torch.nn.Module) -> dict[str, _Weight]:
    """Return each matrix of linear, convolution and attention layers; a shared one is listed under its first name."""
    names: dict[int, str] = {}
    weights: dict[str, _Weight] = {}
    for path, module in model.named_modules():
        for attribute in _attributes(module):
            name = plain_name(f"{path}.{attribute}" if path else attribute)
            if isinstance(module._parameters.get(attribute), torch.nn.Parameter):
                name = names.setdefault(id(module._parameters[attribute]), name)
            weights.setdefault(name, _Weight({}, attribute)).modules[path] = module
    return weights


def _attributes(module: torch.nn.Module) -> list[str]:
    if isinstance(module, torch.nn.MultiheadAttention):
        return [name for name in ATTENTION if getattr(module, name, None) is not None]
    return ["weight"] if isinstance(module, KINDS) or is_conv1d(module) else []


def _rank_above(pattern: Pattern) -> float:
    # With tiles the score must exceed the sum of all other scores of a tile; without tiles, each single score.
    return 1.0 + pattern.tile.rows * pattern.tile.cols if isinstance(pattern, TilePattern) else 2.0
