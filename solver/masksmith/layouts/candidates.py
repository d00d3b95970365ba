"""Candidates: descriptions, without entries, of the tensors from which `select` chooses those to mask."""

from __future__ import annotations

from dataclasses import dataclass

from .layout import Layout


@dataclass(frozen=True, slots=True)
class Candidate:
    """Description of a tensor that is masked if it is supported, and selected by the caller or by default.

    Attributes:
        name: Name of the tensor, unique among the candidates.
        shape: Its shape; empty if it is unknown, or need not be checked. Roles that depend on the shape, such as that
            of a convolution with one input channel, are then not found, and `*.weight` is taken for a layer's weight.
        dtype: Its dtype, as safetensors names it, or as torch does if safetensors has no name for it; empty if it need
            not be checked, since there is no pattern.
        aliases: Other names that the caller may use for the tensor, such as the name of its module.
        layout: How the tensor is made of matrices; None if unknown: then a weight `[out, in, *kernel]` is assumed.
        dense_by_default_reason: Why the tensor stays dense unless `layers` selects it; None if it is masked by default.
        only_by_name: Whether, if the tensor is dense by default, only its full name selects it, and no glob.
        file_format: The format in `__metadata__` of the tensor's file, such as `pt` or `flax`; empty if there is none.
        may_be_convolution: Whether the tensor may be the weight of a convolution, if its shape fits; False if its
            module is known to be no convolution.
        is_outside_layers: Whether the tensor is known to be no layer's weight, so that its layout must be given; if
            False, its name decides.
        unsupported_reason: Why the tensor cannot be masked, whatever the pattern; None if no reason is known. `select`
            checks the dtype, and whether a pattern fits the shape, itself.
        reason_if_named: The `unsupported_reason` if the caller gives the full name; None if it is the same.
        has_unclear_layout: Whether the reason is that the layout is unclear, so that a layout would remove it.
    """

    name: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    aliases: tuple[str, ...] = ()
    layout: Layout | None = None
    dense_by_default_reason: str | None = None
    only_by_name: bool = False
    file_format: str = ""
    may_be_convolution: bool = True
    is_outside_layers: bool = False
    unsupported_reason: str | None = None
    reason_if_named: str | None = None
    has_unclear_layout: bool = False

    @property
    def matrix_shape(self) -> tuple[int, ...]:
        """Shape `[out, in, *kernel]` of each of the tensor's matrices."""
        return self.shape if self.layout is None else self.layout.matrix_shape(self.shape)

    @property
    def spellings(self) -> tuple[str, ...]:
        """Name and aliases."""
        return (self.name, *self.aliases)
