"""Dual coordinate ascent in float64, for tiles whose rows or columns differ by orders of magnitude.

The integers of `integer_pass` have too few bits for the small scores of such tiles. Here each dual has the magnitude of
its own line (row or column), and the proof is checked in vector lanes with exact signs. Only masks that are proved to
be the unique optimum are accepted, so the result does not depend on the algorithm. Other tiles remain unsolved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir

from masksmith._panels import Bools, Duals, Matrix
from masksmith.kernels.jit import alloca_once, for_range, intrinsic, jit, jit_without_refcounts, types
from masksmith.kernels.tile import Budget, Floats, Order

from .fine_units import proved_lanes
from .integer_pass import NO_FLOOR, OF_MASK, OF_SCORES, Lanes, aligned_zeros, compact_unsolved, locate, new_starts
from .simd.lanes import balanced_lanes, gather, lane_offset, pointers, scatter_mask
from .simd.vectors import (
    BITS,
    I64,
    LANES,
    constant,
    index,
    load,
    maximum_float,
    minimum_float,
    network,
    splat,
    store,
)

WIDE = 2.0**-20
"""If the largest scores of two lines have a smaller ratio, the integers of `integer_pass` have too few bits."""
HALF = LANES // 2
DOUBLE, DOUBLES = ir.DoubleType(), ir.VectorType(ir.DoubleType(), LANES)


def _double(builder: Any, value: Any, width: int) -> Any:
    return value if value.type.element == DOUBLE else builder.fpext(value, ir.VectorType(DOUBLE, width))


def _wide_range(
    builder: Any, source: Any, element: Any, count: Any, line_stride: Any, length: Any, entry_stride: Any
) -> Any:
    """Flag lanes where the largest scores of two lines have a ratio below `WIDE`; lines of zeros do not count.

    There are `count` lines of `length` entries; strides as in `simd.lanes`.
    """
    vector = ir.VectorType(element, LANES)
    zero, infinity = ir.Constant(vector, None), ir.Constant(vector, [float("inf")] * LANES)
    least, most, peak = (alloca_once(builder, vector) for _ in range(3))
    builder.store(infinity, least)
    builder.store(zero, most)
    with for_range(builder, count) as line:
        builder.store(zero, peak)
        with for_range(builder, length) as entry:
            at = builder.add(builder.mul(line.index, line_stride), builder.mul(entry.index, entry_stride))
            value = load(builder, source, lane_offset(builder, at), element)
            builder.store(maximum_float(builder, builder.load(peak), value), peak)
        top = builder.load(peak)
        builder.store(maximum_float(builder, top, builder.load(most)), most)
        non_zero = builder.select(builder.fcmp_ordered("==", top, zero), infinity, top)
        builder.store(minimum_float(builder, non_zero, builder.load(least)), least)
    bound = builder.fmul(builder.load(most), ir.Constant(vector, [WIDE] * LANES))
    return builder.fcmp_ordered("<", builder.load(least), bound)


@intrinsic
def lanes_with_wide_range(typing: Any, raw: Any, rows: Any, cols: Any, row_size: Any) -> Any:
    """Return the lanes (one bit each) where the largest scores of two rows or two columns have a ratio below `WIDE`."""
    signature = types.int64(raw, types.int64, types.int64, row_size)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (source,) = pointers(context, builder, signature, args, 0)
        element, (_, rows, cols, _) = context.get_value_type(signature.args[0].dtype), args
        row_stride, one = index(row_size.literal_value), index(1)
        of_rows = _wide_range(builder, source, element, rows, row_stride, cols, one)
        of_cols = _wide_range(builder, source, element, cols, one, rows, row_stride)
        return builder.zext(builder.bitcast(builder.or_(of_rows, of_cols), BITS), I64)

    return signature, generate


def _sorted(builder: Any, values: Sequence[Any]) -> list[Any]:
    x = list(values)
    for a, b in network(len(x)):
        x[a], x[b] = maximum_float(builder, x[a], x[b]), minimum_float(builder, x[a], x[b])
    return x


@intrinsic
def double_threshold_update(
    typing: Any, raw: Any, lines: Any, line_stride: Any, entry_stride: Any, cross_duals: Any, own_duals: Any,
    floor: Any, keep: Any, scratch: Any, size: Any,
) -> Any:  # fmt: skip
    """Set each line's dual half-way between the keep-th and the next largest of `raw - cross_duals` along the line.

    Args:
        raw: Scores in lanes.
        lines: Number of lines.
        line_stride, entry_stride: Places between lines, and between entries of a line.
        cross_duals: Duals of the crossing lines, float64 in lanes.
        own_duals: Duals of the lines to update, written.
        floor: Lower bound on the duals written.
        keep: Budget of each line.
        scratch: Work array for `size` places.
        size: Size of the sorting network, a literal.
    """
    ints, count = types.int64, size.literal_value
    signature = types.void(raw, ints, ints, ints, cross_duals, own_duals, types.float64, ints, scratch, size)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, duals, target, sorted_values = pointers(context, builder, signature, args, 0, 4, 5, 8)
        element, vector = context.get_value_type(signature.args[0].dtype), ir.VectorType(DOUBLE, HALF)
        _, lines, line_stride, entry_stride, _, _, floor, keep, _, _ = args
        lower_bound = splat(builder, floor, HALF)
        nth = builder.mul(keep, index(HALF))
        with for_range(builder, lines) as line, for_range(builder, index(2)) as half:
            lane, values = builder.mul(half.index, index(HALF)), []
            for p in range(count):
                at = builder.add(builder.mul(line.index, line_stride), builder.mul(index(p), entry_stride))
                entry = load(builder, source, builder.add(lane_offset(builder, at), lane), element, HALF)
                other = load(builder, duals, builder.add(index(p * LANES), lane), DOUBLE, HALF)
                values.append(builder.fsub(_double(builder, entry, HALF), other))
            for p, value in enumerate(_sorted(builder, values)):
                store(builder, value, sorted_values, index(p * HALF))
            below = load(builder, sorted_values, nth, DOUBLE, HALF)
            above = load(builder, sorted_values, builder.sub(nth, index(HALF)), DOUBLE, HALF)
            # Not (above + below) / 2, whose sum could overflow.
            distance = builder.fmul(builder.fsub(above, below), ir.Constant(vector, [0.5] * HALF))
            dual = maximum_float(builder, builder.fadd(below, distance), lower_bound)
            store(builder, dual, target, builder.add(lane_offset(builder, line.index), lane))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def threshold_mask(typing: Any, raw: Any, u: Any, v: Any, dropped: Any, rows: Any, cols: Any, row_size: Any) -> Any:
    """Write the mask `raw - v >= u` to `dropped`: 0 where kept, -1 where dropped."""
    signature = types.void(raw, u, v, dropped, types.int64, types.int64, row_size)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, row_dual, col_dual, target = pointers(context, builder, signature, args, 0, 1, 2, 3)
        element = context.get_value_type(signature.args[0].dtype)
        _, _, _, _, rows, cols, _ = args
        with for_range(builder, rows) as row, for_range(builder, cols) as col:
            at = lane_offset(builder, builder.add(builder.mul(row.index, index(row_size.literal_value)), col.index))
            rest = builder.fsub(
                _double(builder, load(builder, source, at, element), LANES),
                load(builder, col_dual, lane_offset(builder, col.index), DOUBLE),
            )
            kept = builder.fcmp_ordered(">=", rest, load(builder, row_dual, lane_offset(builder, row.index), DOUBLE))
            store(builder, builder.select(kept, constant(0), constant(-1)), target, at)
        return context.get_dummy_value()

    return signature, generate


@jit_without_refcounts
def _allow_fewer(floors: Lanes, duals: Floats, length: int) -> None:
    """Set floors so that lines whose dual is 0 may keep fewer entries than their budget.

    The floors are for `balanced_lanes`, which is called with zero duals here, and which allows fewer entries where dual
    and floor are equal.
    """
    for at in range(length * LANES):
        floors[at] = np.int32(0) if duals[at] == 0.0 else np.int32(NO_FLOOR)


@jit_without_refcounts
def _write(target: Duals, tiles: Order, length: int, duals: Floats, lanes: int) -> None:
    """Write the duals of the lanes in the bit set `lanes` to their tiles."""
    for lane in range(LANES):
        if (lanes >> lane) & 1:
            for i in range(length):
                target[tiles[lane], i] = duals[i * LANES + lane]


@cache
def compile_double_pass(row_size: int, col_size: int, width: int) -> Callable[..., Any]:
    """Compile the pass for these network sizes; arguments as for `integer_pass.compile_integer_pass`."""

    @jit
    def run(
        scores: Matrix, budget: Budget, sweeps: int, order: Order, count: int, mask: Bools, row_duals: Duals,
        col_duals: Duals,
    ) -> int:  # fmt: skip
        """Solve tiles with a wide range among the first `count` of `order`.

        Moves the indices of tiles that stay unsolved to the front of `order` and returns their number. Other arguments
        as for the integer pass.
        """
        rows, cols = budget.rows, budget.cols
        raw, dropped = (
            np.full(col_size * row_size * LANES, -np.inf, scores.dtype),
            aligned_zeros(col_size * row_size * LANES),
        )
        dropped[:] = -1
        u, v, scratch = (
            np.zeros(col_size * LANES),
            np.zeros(row_size * LANES),
            np.empty(max(row_size, col_size) * LANES),
        )
        zero = aligned_zeros(max(row_size, col_size) * LANES)
        row_floor, col_floor = aligned_zeros(col_size * LANES), aligned_zeros(row_size * LANES)
        row_floor[:] = col_floor[:] = NO_FLOOR
        peak, starts, floor = np.empty(LANES, scores.dtype), new_starts(), 0.0 if budget.at_most else -np.inf
        unsolved = 0
        for first in range(0, count, LANES):
            locate(starts, order, first, count, scores, mask, rows, cols)
            peak[:] = 0
            gather(scores, starts.scores, starts.stride[OF_SCORES], raw, peak, rows, cols, row_size, width)
            wide_range = lanes_with_wide_range(raw, rows, cols, row_size)
            proved = 0
            if wide_range:
                u[:] = 0.0
                for _ in range(sweeps):
                    double_threshold_update(raw, cols, 1, row_size, u, v, floor, budget.col_keep, scratch, col_size)
                    double_threshold_update(raw, rows, row_size, 1, v, u, floor, budget.row_keep, scratch, row_size)
                threshold_mask(raw, u, v, dropped, rows, cols, row_size)
                if budget.at_most:
                    _allow_fewer(row_floor, u, rows)
                    _allow_fewer(col_floor, v, cols)
                row_keep, col_keep = np.int32(budget.row_keep), np.int32(budget.col_keep)
                proved = wide_range & balanced_lanes(
                    dropped, rows, row_size, 1, zero, zero, row_floor, row_keep, row_size
                )
                proved &= balanced_lanes(dropped, cols, 1, row_size, zero, zero, col_floor, col_keep, col_size)
                proved &= proved_lanes(raw, dropped, u, v, rows, cols, row_size, 1)
                _write(row_duals, starts.tile, rows, u, proved)
                _write(col_duals, starts.tile, cols, v, proved)
                stride = starts.stride[OF_MASK]
                scatter_mask(dropped, zero, zero, mask, starts.mask, stride, rows, cols, row_size, width)
            unsolved = compact_unsolved(order, first, count, proved, unsolved)
        return unsolved

    return run
