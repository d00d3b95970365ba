"""What a forward pass of a model shows of its checkpoint's tensors."""

from __future__ import annotations

from dataclasses import dataclass, field

from masksmith.layouts import Layout


@dataclass(frozen=True, slots=True)
class Trace:
    """Layouts of a checkpoint's tensors, as a forward pass of the model shows them.

    Attributes:
        layouts: By name, with rule `model`; a tensor whose layout is not certain has none.
        dense: Why a tensor is not a matrix of a block, by name.
        tied: For each name, stored or not, of a tensor that shares its memory with another: the name of that one.
        notes: What is not known, and why, for the user.
    """

    layouts: dict[str, Layout] = field(default_factory=dict)
    dense: dict[str, str] = field(default_factory=dict)
    tied: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
