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

_WITH_ONE_STATISTIC: Mapping[str, Callable[..., Any]] = {
    "wanda": wanda,
    "ria": ria,
    "taylor": taylor,
    "sipp": sipp,
    "pfp": pfp,
}


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
        name: Name of the weight in error messages; those of `magnitude` do without.
        options: Options of the method; `given` ignores them.

    Raises:
        ScoresError: If the method is unknown, or as the method raises it.
    """
    if method == "given":
        return weight if statistic is None else statistic
    if method == "magnitude":
        return magnitude(weight, **options)
    if method == "sparsegpt":
        return sparsegpt(weight, **{kind or "gram": statistic}, name=name, **options)
    if method not in _WITH_ONE_STATISTIC:
        raise ScoresError(f"{method!r} is not the name of a score", name=name)
    return _WITH_ONE_STATISTIC[method](weight, statistic, name=name, **options)
