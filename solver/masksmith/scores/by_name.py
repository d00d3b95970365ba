"""Scores by name: from a weight and one statistic of its layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from masksmith._errors import ScoresError

from .activations import ria, wanda
from .magnitude import magnitude
from .sensitivity import pfp, sipp
from .sparsegpt import sparsegpt
from .taylor import taylor

_MADE_OF_ONE: Mapping[str, Callable[..., Any]] = {
    "wanda": wanda,
    "ria": ria,
    "taylor": taylor,
    "sipp": sipp,
    "pfp": pfp,
}


def by_name(
    method: str, weight: Any, given: Any = None, kind: str | None = None, *, name: str | None = None, **options: Any
) -> Any:
    """Score a weight by the method of this name.

    Args:
        method: `magnitude`, `given`, `wanda`, `ria`, `sparsegpt`, `taylor`, `sipp` or `pfp`.
        weight: `[out, in, *kernel]`.
        given: The statistic; `given` scores are this tensor, or the weight itself.
        kind: What the statistic is: `gram` or `inverse_diagonal`, of which `sparsegpt` takes either.
        name: What messages call the weight.
        options: Of the method.

    Raises:
        ScoresError: If there is no such method, or as the method does.
    """
    if method == "given":
        return weight if given is None else given
    if method == "magnitude":
        return magnitude(weight, **options)
    if method == "sparsegpt":
        return sparsegpt(weight, **{kind or "gram": given}, name=name, **options)
    if method not in _MADE_OF_ONE:
        raise ScoresError(f"{method!r} is no score's name", name=name)
    return _MADE_OF_ONE[method](weight, given, name=name, **options)
