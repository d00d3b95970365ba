"""Which layers are masked: linear and convolution weights, by name or all but the first and the last."""

from __future__ import annotations

import torch
from torch.nn.utils import parametrize

from masksmith.layouts import FLOAT_DTYPES, Candidate, SelectionError, select
from masksmith.patterns import Pattern, TilePattern
from masksmith.patterns.matching import Globs
from masksmith_client._errors import InputError
from masksmith_client.submission.tensors import SAFETENSORS_DTYPES

from .masked_layer import MaskedLayer
from .masking import Masking
from .methods.method import Method

KINDS = (torch.nn.Linear, torch.nn.modules.conv._ConvNd)


def choose(
    model: torch.nn.Module, pattern: Pattern, method: Method, layers: Globs, exclude: Globs
) -> tuple[list[MaskedLayer], dict[str, str]]:
    """Choose the layers to mask.

    Args:
        model: The model.
        pattern: What their shapes must suit.
        method: What their maskings follow.
        layers: Names or globs of layers or weights; all but the first and the last unless given.
        exclude: Names or globs to leave out.

    Returns:
        The layers, not yet attached; and the weights left dense, with the reason.

    Raises:
        InputError: If a name or glob matches nothing, a layer that is spelled out cannot be masked, or nothing is left.
    """
    found = _weights(model)
    candidates = [_candidate(name, modules, place, len(found)) for place, (name, modules) in enumerate(found.items())]
    try:
        selection = select(candidates, pattern, layers, exclude, noun="linear or convolution layer")
    except SelectionError as error:
        if error.kind != "nothing_left" or not found:
            raise InputError(str(error)) from None
        raise InputError(f"no layer is left to mask with {pattern}: {error}. Name some with layers=") from None
    return [_masked_layer(name, found[name], pattern, method) for name in selection.chosen], selection.skipped


def _candidate(name: str, modules: dict[str, torch.nn.Module], place: int, count: int) -> Candidate:
    weight = next(iter(modules.values())).get_parameter("weight")
    dtype = SAFETENSORS_DTYPES.get(str(weight.dtype).removeprefix("torch."), str(weight.dtype))
    return Candidate(
        name,
        tuple(weight.shape),
        dtype,
        aliases=tuple(spelling for path in modules if path for spelling in (path, f"{path}.weight")),
        dense_by_default=_dense_by_default(place, count),
        unsupported_reason=None if dtype in FLOAT_DTYPES else f"dtype {weight.dtype} cannot be trained under a mask",
    )


def _dense_by_default(place: int, count: int) -> str | None:
    if place not in (0, count - 1):
        return None
    return f"the {'first' if place == 0 else 'last'} layer stays dense unless it is named"


def _masked_layer(name: str, modules: dict[str, torch.nn.Module], pattern: Pattern, method: Method) -> MaskedLayer:
    weight = next(iter(modules.values())).get_parameter("weight")
    return MaskedLayer(name, modules, weight, Masking(method, weight), _rank_above(pattern))


def _weights(model: torch.nn.Module) -> dict[str, dict[str, torch.nn.Module]]:
    """Give the modules of every linear or convolution weight; a shared weight has its first name."""
    names: dict[int, str] = {}
    found: dict[str, dict[str, torch.nn.Module]] = {}
    for path, module in model.named_modules():
        if not isinstance(module, KINDS):
            continue
        if parametrize.is_parametrized(module, "weight"):
            raise InputError(f"the weight of {path!r} is parametrized already: bake or remove that first")
        name = names.setdefault(id(module.weight), f"{path}.weight" if path else "weight")
        found.setdefault(name, {})[path] = module
    return found


def _rank_above(pattern: Pattern) -> float:
    # Patterns without tiles are filled entry by entry, where it is enough to come first.
    return 1.0 + pattern.tile.rows * pattern.tile.cols if isinstance(pattern, TilePattern) else 2.0
