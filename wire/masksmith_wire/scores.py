"""Scores as jobs name them: a method and its options, such as `"ria power=0.7"`, and what each is made from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Self

from masksmith.layouts import Layout

from .options_grammar import FLAG, NUMBER, POSITIVE, Method, OptionKind, Options, choice

Shape = tuple[int, ...]


def _group(text: str) -> str | tuple[int, int] | None:
    if text in ("in", "out"):
        return text
    sides = text.split("x")
    if len(sides) != 2 or not all(side.isascii() and side.isdecimal() and len(side) < 7 for side in sides):
        return None
    rows, cols = (int(side) for side in sides)
    return (rows, cols) if rows and cols else None


_METHODS: Mapping[str, Options] = {
    "magnitude": {"power": POSITIVE},
    "given": {},
    "wanda": {},
    "ria": {"power": NUMBER},
    "sparsegpt": {"damping": NUMBER, "form": choice("diagonal", "sequential")},
    "taylor": {"group": OptionKind("in, out or ROWSxCOLS", _group), "joint": FLAG},
    "sipp": {"reduce": choice("mean", "max")},
    "pfp": {},
}
_KINDS = {
    "magnitude": (),
    "given": ("scores",),
    "wanda": ("norms",),
    "ria": ("norms",),
    "sparsegpt": ("inverse_diagonal", "gram"),
    "taylor": ("gradient_rms", "gradient"),
    "sipp": ("activations",),
    "pfp": ("activations",),
}
KINDS = tuple(sorted({kind for kinds in _KINDS.values() for kind in kinds}))


class ScoreMethod(Method):
    """How a job scores its weights: by one of the methods that `methods` lists."""

    plural = "scores"
    methods = _METHODS

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read scores; see `Method.parse`."""
        method = super().parse(text)
        if method.options.get("group") == "in" and method.options.get("joint"):
            raise ValueError(f"{text[:80]!r}: joint sums over input channels need all rows at once; use the library")
        return method

    @property
    def kinds(self) -> tuple[str, ...]:
        """Statistics that it can be made from, the preferred one first; none if the weight is enough."""
        if self.name == "sparsegpt" and self.options:
            return ("gram",)
        if self.name == "ria" and self.options.get("power") == 0:
            return ()
        return _KINDS[self.name]

    @property
    def is_optional(self) -> bool:
        """Whether it does without a statistic too: `given` scores may be the tensors themselves."""
        return self.name == "given" or not self.kinds

    @property
    def block(self) -> tuple[int, int] | None:
        """Blocks that scores are summed over, if any: their rows must be scored together."""
        group = self.options.get("group")
        return group if isinstance(group, tuple) else None


def statistic_key(name: str, kind: str) -> str:
    """Name a weight's statistic in a calibration file; scores have the weight's own name."""
    return name if kind == "scores" else f"{name}/{kind}"


def statistic_misfit(kind: str, shape: Shape, weight: Shape, layout: Layout | None = None) -> str | None:
    """Say why a statistic of this shape cannot be a weight's, or None when it can.

    Stacked matrices have stacked statistics; what is not of the weight's own shape counts inputs of one matrix.
    """
    if layout is not None and kind in ("norms", "inverse_diagonal", "gram", "activations"):
        stack = layout.stack_shape(weight)
        if shape[: len(stack)] != stack:
            return f"{kind} of shape {list(shape)} are not stacked as the weight is: expected {[*stack]} in front"
        return statistic_misfit(kind, shape[len(stack) :], layout.matrix_shape(weight))
    inputs, flat = weight[1:], math.prod(weight[1:])
    if kind in ("norms", "inverse_diagonal"):
        fits, wanted = shape in (inputs, (flat,), weight[1:2]), f"[{flat}]"
    elif kind == "gram":
        fits, wanted = shape == (flat, flat), f"[{flat}, {flat}]"
    elif kind == "activations":
        fits, wanted = len(shape) == 2 and shape[0] > 0 and shape[1] == flat, f"[samples, {flat}]"
    else:
        fits, wanted = shape == weight, f"{list(weight)}"
    return (
        None if fits else f"{kind} of shape {list(shape)} are not those of a weight {list(weight)}: expected {wanted}"
    )
