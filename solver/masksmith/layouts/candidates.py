"""What there is to choose from: tensors as plain values, wherever they are kept."""

from __future__ import annotations

from dataclasses import dataclass

from .layout import Layout


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tensor that may be masked.

    Attributes:
        name: Its name, which no other candidate has.
        shape: Its shape.
        dtype: Its dtype, as safetensors names it.
        aliases: Other spellings of it, such as the module that it belongs to.
        layout: How it is made of matrices; None where that is not known, and a weight `[out, in, *kernel]` is assumed.
        dense_by_default: Why it is left out where `layers` does not select it.
        only_by_name: Whether a glob does not select it then, but only its full name.
        file_format: The format that its file names in `__metadata__`, such as `pt` or `flax`; empty if none.
        may_be_convolution: Whether its shape may make it a convolution: not if it belongs to a module of another kind.
        unsupported_reason: Why it cannot be masked, known before shape and dtype are looked at.
    """

    name: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    aliases: tuple[str, ...] = ()
    layout: Layout | None = None
    dense_by_default: str | None = None
    only_by_name: bool = False
    file_format: str = ""
    may_be_convolution: bool = True
    unsupported_reason: str | None = None

    @property
    def matrix_shape(self) -> tuple[int, ...]:
        """Shape `[out, in, *kernel]` of each of its matrices."""
        return self.shape if self.layout is None else self.layout.matrix_shape(self.shape)

    @property
    def spellings(self) -> tuple[str, ...]:
        """Everything that names it."""
        return (self.name, *self.aliases)
