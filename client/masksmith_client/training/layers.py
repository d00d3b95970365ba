"""Select the layers to mask: linear and convolution layers, by name, or by the default rule of `masksmith.layouts`."""

from __future__ import annotations

import torch
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
    candidates = [_candidate(name, modules, index, count) for index, (name, modules) in enumerate(weights.items())]
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


def _candidate(name: str, modules: dict[str, torch.nn.Module], index: int, count: int) -> Candidate:
    module = next(iter(modules.values()))
    weight = module.get_parameter("weight")
    dtype = SAFETENSORS_DTYPES.get(str(weight.dtype).removeprefix("torch."), str(weight.dtype))
    reason = None if dtype in FLOAT_DTYPES else f"dtype {weight.dtype} cannot be trained with a mask"
    if isinstance(module, torch.nn.modules.conv._ConvTransposeNd) and module.groups > 1:
        reason = "a transposed convolution of several groups"
    return Candidate(
        name,
        tuple(weight.shape),
        dtype,
        aliases=tuple(spelling for path in modules if path for spelling in (path, f"{path}.weight")),
        dense_by_default=_dense_by_default(index, count),
        layout=layout_of(module, weight.dim()),
        unsupported_reason=reason,
    )


def _dense_by_default(index: int, count: int) -> str | None:
    if count == 0 or index not in (0, count - 1):
        return None
    return f"the {'first' if index == 0 else 'last'} layer stays dense unless it is named"


def _masked_layer(
    name: str, modules: dict[str, torch.nn.Module], pattern: Pattern, method: Method, layout: Layout | None
) -> MaskedLayer:
    weight = next(iter(modules.values())).get_parameter("weight")
    own = None if layout is None or layout.is_plain(pattern, weight.shape) else layout
    return MaskedLayer(name, modules, weight, Masking(method, weight), _rank_above(pattern), own)


def _find_weights(model: torch.nn.Module) -> dict[str, dict[str, torch.nn.Module]]:
    """Return the modules of each linear or convolution weight; a shared weight is listed under its first name."""
    names: dict[int, str] = {}
    weights: dict[str, dict[str, torch.nn.Module]] = {}
    for path, module in model.named_modules():
        if not isinstance(module, KINDS) and not is_conv1d(module):
            continue
        if parametrize.is_parametrized(module, "weight"):
            raise InputError(
                f"the weight of {path!r} is parametrized already: bake or remove the parametrization first"
            )
        name = names.setdefault(id(module.weight), f"{path}.weight" if path else "weight")
        weights.setdefault(name, {})[path] = module
    return weights


def _rank_above(pattern: Pattern) -> float:
    # With tiles the score must exceed the sum of all other scores of a tile; without tiles, each single score.
    return 1.0 + pattern.tile.rows * pattern.tile.cols if isinstance(pattern, TilePattern) else 2.0
