"""Scores by the name of the method, from a weight and at most one statistic of its layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from masksmith._errors import ScoresError

from .activations import ria, wanda
from .magnitude import magnitude
from .sensitivity import pfp, sipp
from .sparsegpt import sparsegpt
from .taylor import taylor

_OTHER_METHODS: Mapping[str, Callable[..., Any]] = {
    "wanda": wanda,
    "ria": ria,
    "taylor": taylor,
    "sipp": sipp,
    "pfp": pfp,
}
"""The methods that `by_name` does not treat separately; their functions take the statistic as the second argument."""


def by_name(
    method: str, weight: Any, statistic: Any = None, kind: str | None = None, *, name: str | None = None, **options: Any
) -> Any:
    """Score a weight by a method.

    Args:
        method: `magnitude`, `given`, `wanda`, `ria`, `sparsegpt`, `taylor`, `sipp` or `pfp`.
        weight: `[out, in, *kernel]`.
        statistic: Statistic of the layer; `magnitude` uses none. For the method `given`, the scores (by default the
            weight itself).
        kind: For `sparsegpt`, the kind of the statistic: `gram` (the default) or `inverse_diagonal`.
        name: Name of the weight in error messages.
        options: Options of the method; `given` ignores them.

    Raises:
        ScoresError: If the method is unknown, or as the method raises it.
    """
    if method == "given":
        return weight if statistic is None else statistic
    if method == "magnitude":
        return magnitude(weight, name=name, **options)
    if method == "sparsegpt":
        return sparsegpt(weight, **{kind or "gram": statistic}, name=name, **options)
    if method not in _OTHER_METHODS:
        raise ScoresError(f"{method!r} is not the name of a score", name=name)
    return _OTHER_METHODS[method](weight, statistic, name=name, **options)
