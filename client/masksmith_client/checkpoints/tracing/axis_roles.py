"""Axes of a tensor from the roles that its dimensions had in products."""

from __future__ import annotations

from collections.abc import Sequence

from masksmith.layouts.layout import AxisRole

_MERGED: dict[frozenset[AxisRole], AxisRole] = {
    frozenset({"stack", "out"}): "out",
    frozenset({"in", "kernel"}): "in",
}
"""The role of a dimension that has two roles, because a reshape merges dimensions into it or splits it."""


def axes_from(roles: Sequence[frozenset[AxisRole]], shape: Sequence[int]) -> tuple[AxisRole, ...] | None:
    """Return the role of each dimension; None if they are not certain.

    Args:
        roles: For each dimension, its roles in the products; an empty set if it only selects a matrix, or has length 1.
        shape: For each dimension, its length.
    """
    axes: list[AxisRole | None] = []
    for roles_of_dim, length in zip(roles, shape, strict=True):
        role = next(iter(roles_of_dim)) if len(roles_of_dim) == 1 else _MERGED.get(roles_of_dim)
        if role is None and roles_of_dim:
            return None
        axes.append(role or ("stack" if length > 1 else None))
    return _with_one_out_and_in(axes)


def _with_one_out_and_in(axes: list[AxisRole | None]) -> tuple[AxisRole, ...] | None:
    """Keep the last `out` and the first `in`: earlier `out` become `stack`, later `in` become `kernel`.

    Dimensions without a role have length 1. If no dimension is `out`, or none is `in`, the first dimension without a
    role gets the missing role; the others become `kernel` if there is a `kernel`, else `stack`. Returns None if `out`
    or `in` is still missing, or if there are several `in` and one of them is before the last `out`.
    """
    for role in ("out", "in"):
        if role not in axes and None in axes:
            axes[axes.index(None)] = role
    outs = [dim for dim, role in enumerate(axes) if role == "out"]
    ins = [dim for dim, role in enumerate(axes) if role == "in"]
    if not outs or not ins or (len(ins) > 1 and outs[-1] > ins[0]):
        return None
    for dim in outs[:-1]:
        axes[dim] = "stack"
    for dim in ins[1:]:
        axes[dim] = "kernel"
    rest: AxisRole = "kernel" if "kernel" in axes else "stack"
    return tuple(role or rest for role in axes)
