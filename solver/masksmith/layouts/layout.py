"""Layout: how a stored tensor enters a matrix product; each of its dimensions has a role."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from masksmith.patterns import Block, Hybrid, Pattern, PatternError

AxisRole = Literal["stack", "out", "in", "kernel"]
"""What a dimension counts: matrices, output features, input features, or positions of a kernel."""

Rule = Literal["user", "model", "architecture", "name", "shape"]
"""Where a layout comes from: the caller, the model (a forward pass or a layer's class), the model's config, the
tensor's name, or its shape."""

CONVOLUTION: tuple[AxisRole, ...] = ("out", "in", "kernel", "kernel", "kernel")
"""Axes of the weight of a convolution over three dimensions; over fewer, it has fewer axes `kernel`."""


SEVERAL_SUMMED_AXES = "its products sum over several of its axes, as a convolution's; it is not pruned block by block"
"""Why a weight with an axis `kernel` stays dense if a model is pruned block by block."""


class LayoutError(PatternError):
    """Axes or fused parts that do not describe matrices, or that do not match a tensor's shape."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a tensor is made of matrices `[out, in]`; a layer multiplies its inputs by them and sums over `in`.

    Attributes:
        axes: The role of each dimension, in the order of storage: `out` and `in` once each; `stack` for dimensions
            that count matrices (experts); `kernel` for positions of a convolution's kernel, which are summed over, too.
        out_parts: Numbers of rows of the matrices that are fused along `out`, such as query, key and value; the model
            splits their outputs again. The numbers add up to the length of `out`; empty if nothing is fused.
        rule: Where the axes come from.
    """

    axes: tuple[AxisRole, ...]
    out_parts: tuple[int, ...] = ()
    rule: Rule = "user"

    def __post_init__(self) -> None:
        unknown = [role for role in self.axes if role not in get_args(AxisRole)]
        if unknown:
            raise LayoutError(f"axis {unknown[0]!r} is not one of: {', '.join(get_args(AxisRole))}")
        if self.axes.count("out") != 1 or self.axes.count("in") != 1:
            raise LayoutError(f"axes {str(self)!r} must say 'out' and 'in' once each")
        if any(part < 1 for part in self.out_parts):
            raise LayoutError(f"out_parts {list(self.out_parts)} must be positive")

    @classmethod
    def parse(cls, text: str, rule: Rule = "user", out_parts: Sequence[int] = ()) -> Self:
        """Parse axes, separated by spaces, such as `stack in out`.

        Raises:
            LayoutError: If they do not describe a stack of matrices, or are no text.
        """
        if not isinstance(text, str):
            raise LayoutError(f"a layout is a text of axes, such as 'in out', not {text!r}")
        return cls(tuple(text.split()), tuple(out_parts), rule)  # type: ignore[arg-type]

    @classmethod
    def of(cls, layout: Layout | str | None) -> Layout | None:
        """Return the layout that the text of its axes describes; a layout, and None, are returned unchanged.

        Raises:
            LayoutError: If the axes do not describe a stack of matrices.
        """
        if layout is None or isinstance(layout, Layout):
            return layout
        return cls.parse(layout)

    def __str__(self) -> str:
        return " ".join(self.axes)

    @property
    def order(self) -> tuple[int, ...]:
        """Dimensions of the tensor in the order `[*stack, out, in, *kernel]`."""
        rank = {"stack": 0, "out": 1, "in": 2, "kernel": 3}
        return tuple(sorted(range(len(self.axes)), key=lambda dimension: rank[self.axes[dimension]]))

    @property
    def is_transposed(self) -> bool:
        """Whether the dimensions are stored in another order than `[*stack, out, in, *kernel]`."""
        return self.order != tuple(range(len(self.axes)))

    @property
    def is_stack(self) -> bool:
        """Whether the first dimension counts matrices: each of its indices selects a matrix or a smaller stack."""
        return self.axes[0] == "stack"

    def check(self, shape: Sequence[int]) -> None:
        """Check that a shape has as many dimensions as the layout, and that the fused parts add up to its outputs.

        Raises:
            LayoutError: If the shape does not match; the message has both numbers.
        """
        if len(shape) != len(self.axes):
            raise LayoutError(
                f"axes {str(self)!r} are for {len(self.axes)} dimensions, but the shape {list(shape)} has {len(shape)}"
            )
        rows = shape[self.axes.index("out")]
        if self.out_parts and sum(self.out_parts) != rows:
            raise LayoutError(f"out_parts {list(self.out_parts)} add up to {sum(self.out_parts)}, not to {rows} rows")

    def count(self, shape: Sequence[int]) -> int:
        """Count the matrices of a tensor."""
        return math.prod(self.stack_shape(shape))

    def stack_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the lengths of the dimensions that count matrices."""
        return tuple(length for length, role in zip(shape, self.axes, strict=True) if role == "stack")

    def matrix_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape `[out, in, *kernel]` of each matrix.

        Raises:
            LayoutError: If the shape does not match the axes.
        """
        self.check(shape)
        return tuple(shape[dimension] for dimension in self.order if self.axes[dimension] != "stack")

    def matrices(self, tensor: Any) -> list[Any]:
        """Return a tensor's matrices `[out, in, *kernel]`, in the order of storage, as views of the array or tensor.

        Raises:
            LayoutError: If the tensor's shape does not match the axes, or the tensor has no entries.
        """
        self.check(tensor.shape)
        if 0 in tensor.shape:
            shape = [int(length) for length in tensor.shape]
            raise LayoutError(f"shape {shape} is empty: dimension {shape.index(0)} is 0")
        permute = tensor.permute if hasattr(tensor, "permute") else tensor.transpose
        views = [permute(self.order)]
        for _ in range(self.axes.count("stack")):
            views = [view[index] for view in views for index in range(len(view))]
        return views

    def tensor_index(self, shape: Sequence[int], number: int, index: Sequence[int]) -> tuple[int, ...]:
        """Return the index in the tensor of an entry of a matrix.

        Args:
            shape: The tensor's shape.
            number: Which of `matrices` it is.
            index: `(out, in, *kernel)`, the entry's index in the matrix.
        """
        by_dimension = dict(zip(self.order, (*self.stack_index(shape, number), *index), strict=True))
        return tuple(by_dimension[dimension] for dimension in range(len(self.axes)))

    def stack_index(self, shape: Sequence[int], number: int) -> tuple[int, ...]:
        """Return the position of a matrix in the dimensions that count matrices, from its number in `matrices`."""
        position = list[int]()
        for length in reversed(self.stack_shape(shape)):
            number, remainder = divmod(number, length)
            position.insert(0, remainder)
        return tuple(position)

    def part_shapes(self, pattern: Pattern, shape: Sequence[int]) -> list[tuple[int, ...]]:
        """Return the shape of every matrix or fused part that is solved on its own, in the order of storage."""
        _, *rest = self.matrix_shape(shape)
        ranges = self.row_ranges(pattern, shape)
        return [(last - first, *rest) for _ in range(self.count(shape)) for first, last in ranges]

    def is_plain(self, pattern: Pattern, shape: Sequence[int]) -> bool:
        """Whether the tensor is one matrix, stored row by row, that is solved as a whole (see `row_ranges`)."""
        return self.axes == default_axes(shape) and len(self.row_ranges(pattern, shape)) == 1

    def row_ranges(self, pattern: Pattern, shape: Sequence[int]) -> list[tuple[int, int]]:
        """Return the row ranges of a matrix that are solved on their own: its fused parts, or all rows as one range.

        All rows are one range if each part consists of whole tile rows or block rows of the pattern.

        Raises:
            PatternError: If the pattern does not fit a part.
        """
        rows, *rest = self.matrix_shape(shape)
        # `shard_rows` is None for patterns whose budget belongs to the whole tensor; their parts may begin at any row.
        height = pattern.rows if isinstance(pattern, (Block, Hybrid)) else pattern.shard_rows or 1
        if all(part % height == 0 for part in self.out_parts):
            return [(0, rows)]
        ranges, first = list[tuple[int, int]](), 0
        for part in self.out_parts:
            pattern.grid((part, *rest))  # raises the error of a part that the pattern does not fit
            ranges.append((first, first + part))
            first += part
        return ranges


def default_axes(shape: Sequence[int]) -> tuple[AxisRole, ...]:
    """Return the axes of a weight `[out, in]` or of a convolution `[out, in, *kernel]` with up to three kernel axes."""
    return CONVOLUTION[: max(2, min(len(shape), len(CONVOLUTION)))]
