"""Places of weights in fused parameters, such as experts stacked in one parameter, and of matrices in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
        strides: Distance of neighbouring entries along each dimension of the weight, in entries of the parameter.
        offset: Index, in the flattened parameter, of the weight's first entry.
    """

    parameter: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    def fits(self, entry_count: int) -> bool:
        """Whether the weight lies within a parameter of `entry_count` entries.

        False if the number of strides is not that of the dimensions, or if a stride or the offset is negative.
        """
        if len(self.shape) != len(self.strides) or self.offset < 0 or min(self.strides, default=0) < 0:
            return False
        return self.offset + _distance_to_last_entry(self.shape, self.strides) < entry_count

    def view(self, parameter: Tensor) -> Tensor:
        """Return a view of the weight's entries in the parameter, or in another tensor of the parameter's shape.

        Raises:
            ValueError: If the tensor is not contiguous.
        """
        if not parameter.is_contiguous():
            raise ValueError(f"{self.parameter!r} is not contiguous, so the places of its parts are not known")
        return parameter.as_strided(self.shape, self.strides, parameter.storage_offset() + self.offset)


@dataclass(frozen=True, slots=True)
class MatrixView:
    """Where a matrix `[in, out]` is in memory; a place is the index of an entry in a storage of torch.

    Attributes:
        start: Place of the first entry.
        shape: Numbers of inputs and of outputs.
        strides: Distance between neighbouring inputs, and between neighbouring outputs, in places.
    """

    start: int
    shape: tuple[int, int]
    strides: tuple[int, int]

    @property
    def stop(self) -> int:
        """Place after the last entry."""
        return self.start + 1 + _distance_to_last_entry(self.shape, self.strides)

    def overlaps(self, other: MatrixView) -> bool:
        """Whether the ranges from first to last entry of two matrices in one storage have a place in common."""
        return self.start < other.stop and other.start < self.stop

    def contains(self, other: MatrixView) -> bool:
        """Whether each output of the other matrix, with all of its inputs, is an output of this one.

        If both have one output, they contain each other if these outputs are the same; strides between outputs do not
        matter then. Otherwise, a matrix with stride 0 between its outputs contains none: all its outputs are the same.
        """
        (inputs, outputs), (in_stride, out_stride) = self.shape, self.strides
        if (other.shape[0], other.strides[0]) != (inputs, in_stride):
            return False
        # A stride between outputs has no meaning for a single output, and may be 0.
        if self.start == other.start and outputs == other.shape[1] == 1:
            return True
        if out_stride == 0:
            return False
        first_output, start_remainder = divmod(other.start - self.start, out_stride)
        output_step, stride_remainder = divmod(other.strides[1] if other.shape[1] > 1 else 0, out_stride)
        last_output = first_output + (other.shape[1] - 1) * output_step
        return start_remainder == stride_remainder == 0 and 0 <= first_output <= last_output < outputs


def _distance_to_last_entry(shape: Sequence[int], strides: Sequence[int]) -> int:
    return sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))


def matrices_in_memory(layout: Layout, tensor: Tensor) -> Iterator[MatrixView]:
    """Return where the matrices of a weight are in memory, in the order of `Layout.matrices`.

    Of a convolution, only the entries at the first position of the kernel are included.
    """
    in_axis, out_axis = layout.axes.index("in"), layout.axes.index("out")
    shape = (tensor.shape[in_axis], tensor.shape[out_axis])
    strides = (int(tensor.stride(in_axis)), int(tensor.stride(out_axis)))
    starts = [int(tensor.storage_offset())]
    for length, stride, role in zip(tensor.shape, tensor.stride(), layout.axes, strict=True):
        if role == "stack":
            starts = [start + index * int(stride) for start in starts for index in range(length)]
    return (MatrixView(start, shape, strides) for start in starts)
