"""What a forward pass of a model shows about its checkpoint's tensors."""

from __future__ import annotations

from dataclasses import dataclass, field

from masksmith.layouts import Layout


@dataclass(frozen=True, slots=True)
class Trace:
    """Layouts of a checkpoint's tensors, as a forward pass of the model shows them.

    Attributes:
        layouts: Layouts by the tensor's name, with `model` as their `rule`; a tensor without a certain layout is left
            out.
        dense_reasons: By the tensor's name, why the tensor stays dense unless the user selects it.
        tied: Maps the name of each tied tensor, stored or not, to the name of the tensor whose memory it shares.
        notes: Notes for the user: the tensors whose layout is not known, and why.
    """

    layouts: dict[str, Layout] = field(default_factory=dict)
    dense_reasons: dict[str, str] = field(default_factory=dict)
    tied: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
