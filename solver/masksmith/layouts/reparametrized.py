"""Weights that a layer computes from other parameters, recognised by the names that torch gives these parameters."""

from __future__ import annotations

import re
from collections.abc import Collection

_PARAMETRIZED = re.compile(r"(?:^|\.)parametrizations\.(?P<weight>[^.]+)\.")
_PART = re.compile(r"(?P<weight>.*(?:^|[._])weight(?:_\w+)?)_(?P<part>orig|mask|g|v|u)$", re.DOTALL)
"""Name of a parameter of a hook: the name of the weight, then that of the part."""

_HOOKS = (
    (("orig", "mask"), "torch.nn.utils.prune.remove"),
    (("g", "v"), "torch.nn.utils.remove_weight_norm"),
    (("orig", "u"), "torch.nn.utils.remove_spectral_norm"),
)
"""Parts from which a hook of `torch.nn.utils` computes a weight, and the function that removes the hook."""


def without_parametrization(name: str) -> str:
    """Return a name without the part that `torch.nn.utils.parametrize` adds, which may have numbers of its own."""
    match = _PARAMETRIZED.search(name)
    return name if match is None else name[: match.start()]


def reparametrized_reason(name: str, names: Collection[str]) -> str | None:
    """Return why a parameter that a layer's weight is computed from is not masked, and what to do.

    None for other tensors. Zeros in such a parameter either do not become zeros of the weight, or also change the
    weight's other entries.

    Args:
        name: Name of the parameter or buffer.
        names: Names of all tensors.
    """
    match = _PARAMETRIZED.search(name)
    if match is not None:
        return _reason("torch.nn.utils.parametrize.remove_parametrizations", match["weight"])
    match = _PART.fullmatch(name)
    if match is None:
        return None
    weight = match["weight"]
    for parts, removing_function in _HOOKS:
        if match["part"] in parts and all(f"{weight}_{part}" in names for part in parts):
            return _reason(removing_function, weight.rpartition(".")[2])
    return None


def _reason(removing_function: str, weight: str) -> str:
    return (
        f"its layer computes {weight!r} from several parameters, of which this is one; call "
        f"{removing_function}(layer, {weight!r}) before you save the model"
    )
