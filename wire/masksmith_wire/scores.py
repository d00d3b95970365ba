"""Score methods of jobs, such as `"ria power=0.7"`, and the calibration statistics that each one needs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Self

from masksmith.layouts import Layout

from .options_grammar import FLAG, Method, OptionType, OptionTypes, choice, number_from

Shape = tuple[int, ...]
SCORES_VERSION = 2
"""Increased whenever a method may give different scores for the same input."""
MAX_DAMPING = 1e9
"""Largest damping of scores and updates, as a multiple of the mean of a Gram matrix's diagonal."""


def _parse_group(text: str) -> str | tuple[int, int] | None:
    """Parse `in`, `out` or `ROWSxCOLS`, with 1 to 999999 rows and columns; None for any other text."""
    if text in ("in", "out"):
        return text
    sides = text.split("x")
    if len(sides) != 2 or not all(side.isascii() and side.isdecimal() and len(side) < 7 for side in sides):
        return None
    rows, cols = (int(side) for side in sides)
    return (rows, cols) if rows and cols else None


_METHODS: Mapping[str, OptionTypes] = {
    "magnitude": {"power": number_from(0.1, 10)},
    "given": {},
    "wanda": {},
    "ria": {"power": number_from(0, 10)},
    "sparsegpt": {"damping": number_from(0, MAX_DAMPING), "form": choice("diagonal", "sequential")},
    "taylor": {"group": OptionType("in, out or ROWSxCOLS", _parse_group), "joint": FLAG},
    "sipp": {"reduce": choice("mean", "max")},
    "pfp": {},
}
_KINDS_BY_METHOD = {
    "magnitude": (),
    "given": ("scores",),
    "wanda": ("norms",),
    "ria": ("norms",),
    "sparsegpt": ("inverse_diagonal", "gram"),
    "taylor": ("gradient_rms", "gradient"),
    "sipp": ("activations",),
    "pfp": ("activations",),
}
"""Kinds of statistic from which each method can compute scores, the preferred kind first; empty if it needs none."""
KINDS = tuple(sorted({kind for kinds in _KINDS_BY_METHOD.values() for kind in kinds}))
"""All kinds of statistic."""


class ScoreMethod(Method):
    """The method by which a job scores its weights."""

    plural = "scores"
    methods = _METHODS

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a score method, as `Method.parse` does.

        Raises:
            ValueError: Also for `taylor group=in joint=true`, which jobs do not support.
        """
        method = super().parse(text)
        if method.options.get("group") == "in" and method.options.get("joint"):
            raise ValueError(f"{text[:80]!r}: joint sums over input channels need all rows at once; use the library")
        return method

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of statistic from which scores can be computed, the preferred kind first; empty if none is needed."""
        if self.name == "sparsegpt" and self.options:
            # The options change how the inverse diagonal is computed, so a stored one is not used.
            return ("gram",)
        if self.name == "ria" and self.options.get("power") == 0:
            return ()
        return _KINDS_BY_METHOD[self.name]

    @property
    def needs_statistic(self) -> bool:
        """Whether a statistic is needed; False for `given`: the job's tensors themselves may be the scores."""
        return self.name != "given" and bool(self.kinds)

    @property
    def block_shape(self) -> tuple[int, int] | None:
        """Shape of the blocks over which scores are summed; None if they are not summed over blocks.

        The rows of a block must be scored together.
        """
        group = self.options.get("group")
        return group if isinstance(group, tuple) else None


def statistic_key(name: str, kind: str) -> str:
    """Key of a weight's statistic in a calibration file; the key of scores is the name of the weight."""
    return name if kind == "scores" else f"{name}/{kind}"


def missing_reason(name: str, kind: str) -> str:
    """Text that says that the calibration has no statistic of this kind for a weight."""
    return f"not calibrated: the calibration has no {statistic_key(name, kind)!r}"


def statistic_mismatch(kind: str, shape: Shape, weight: Shape, layout: Layout | None = None) -> str | None:
    """Reason why a statistic of this shape cannot belong to a weight of shape `weight`, or None if it can.

    If matrices are stacked in the weight, their statistics must be stacked in the same way. Without a layout, the
    weight is one matrix `[out, in, *kernel]`.
    """
    if layout is not None and kind in ("norms", "inverse_diagonal", "gram", "activations"):
        stack = layout.stack_shape(weight)
        if shape[: len(stack)] != stack:
            return f"{kind} of shape {list(shape)} are not stacked as the weight is: expected {[*stack]} in front"
        return statistic_mismatch(kind, shape[len(stack) :], layout.matrix_shape(weight))
    row_shape, flat = weight[1:], math.prod(weight[1:])
    if kind in ("norms", "inverse_diagonal"):
        # Shape `[in, *kernel]`, or the same flattened; or `[in]`: one number for all entries of a channel's kernel.
        fits, expected = shape in (row_shape, (flat,), weight[1:2]), f"[{flat}]"
    elif kind == "gram":
        fits, expected = shape == (flat, flat), f"[{flat}, {flat}]"
    elif kind == "activations":
        fits, expected = len(shape) == 2 and shape[0] > 0 and shape[1] == flat, f"[samples, {flat}]"
    else:
        fits, expected = shape == weight, f"{list(weight)}"
    if fits:
        return None
    return f"{kind} of shape {list(shape)} do not fit a weight of shape {list(weight)}: expected {expected}"
