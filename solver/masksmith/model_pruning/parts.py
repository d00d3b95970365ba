"""Parts of parameters: weights that a model has fused with others into one parameter, such as those of experts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from masksmith.layouts import Layout

Tensor = torch.Tensor


@dataclass(frozen=True, slots=True)
class Part:
    """Where a weight is in a contiguous parameter.

    Attributes:
        parameter: Name of the parameter in the model.
        shape: Shape of the weight.
        strides: Distance of neighbours along each of its dimensions, in entries of the parameter.
        offset: Place of its first entry in the parameter.
    """

    parameter: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    def fits(self, entries: int) -> bool:
        """Whether it is within a parameter of a number of entries."""
        if len(self.shape) != len(self.strides) or self.offset < 0 or min(self.strides, default=0) < 0:
            return False
        return self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True)) < entries

    def view(self, parameter: Tensor) -> Tensor:
        """Return the weight as a view of the parameter, or the same entries of another tensor of its shape.

        Raises:
            ValueError: If the tensor is not contiguous.
        """
        if not parameter.is_contiguous():
            raise ValueError(f"{self.parameter!r} is not contiguous, so its parts are not known")
        return parameter.as_strided(self.shape, self.strides, parameter.storage_offset() + self.offset)


@dataclass(frozen=True, slots=True)
class MatrixView:
    """A matrix `[in, out]` in memory.

    Attributes:
        start: Place of its first entry.
        shape: Numbers of inputs and of outputs.
        strides: Distance of neighbouring inputs and of neighbouring outputs.
    """

    start: int
    shape: tuple[int, int]
    strides: tuple[int, int]

    @property
    def stop(self) -> int:
        """Place after its last entry."""
        return self.start + 1 + sum((length - 1) * step for length, step in zip(self.shape, self.strides, strict=True))

    def overlaps(self, other: MatrixView) -> bool:
        """Whether the ranges of memory that the matrices span have a place in common."""
        return self.start < other.stop and other.start < self.stop

    def contains(self, other: MatrixView) -> bool:
        """Whether the other matrix is some of the outputs of this one, with all of their inputs."""
        (inputs, outputs), (in_step, out_step) = self.shape, self.strides
        if (other.shape[0], other.strides[0]) != (inputs, in_step) or not out_step:
            return False
        first, rest = divmod(other.start - self.start, out_step)
        every, step_rest = divmod(other.strides[1], out_step)
        last = first + (other.shape[1] - 1) * every
        return rest == step_rest == 0 and 0 <= first <= last < outputs


def matrices_in_memory(layout: Layout, tensor: Tensor) -> Iterator[MatrixView]:
    """Return the matrices of a weight, in order."""
    in_axis, out_axis = layout.axes.index("in"), layout.axes.index("out")
    shape = (tensor.shape[in_axis], tensor.shape[out_axis])
    strides = (int(tensor.stride(in_axis)), int(tensor.stride(out_axis)))
    starts = [int(tensor.storage_offset())]
    for length, step, role in zip(tensor.shape, tensor.stride(), layout.axes, strict=True):
        if role == "stack":
            starts = [start + number * int(step) for start in starts for number in range(length)]
    return (MatrixView(start, shape, strides) for start in starts)
