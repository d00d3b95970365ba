"""Sweeps in doubles, for tiles whose rows or columns differ by orders of magnitude.

The integers of `integer_pass` have no digits left for small ones. Here each price has the magnitude of its own line,
and the proof is looked at in lanes, with exact signs. Only masks without an equal go out from here: any other way to
the optimum finds the same one. The other tiles stay as they came.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir

from masksmith._panels import Bools, Duals, Matrix
from masksmith.kernels.jit import alloca_once, borrow, for_range, intrinsic, jit, types
from masksmith.kernels.tile import Budget, Floats, Order

from .fine_units import proving
from .integer_pass import NO_FLOOR, Lanes, aligned, keep_rest, locate, new_starts
from .simd.lanes import fitting, gather, place, pointers, scatter_mask
from .simd.vectors import BITS, I32, I64, LANES, constant, index, load, network, store

WIDE = 2.0**-20
"""Lines whose largest scores are further apart than this keep too few digits in the integers of the waves."""
HALF = LANES // 2
DOUBLE, DOUBLES = ir.DoubleType(), ir.VectorType(ir.DoubleType(), LANES)


def _more(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _less(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", a, b), a, b)


def _double(builder: Any, value: Any, width: int) -> Any:
    return value if value.type.element == DOUBLE else builder.fpext(value, ir.VectorType(DOUBLE, width))


def _wide_lines(builder: Any, source: Any, element: Any, count: Any, apart: Any, length: Any, step: Any) -> Any:
    """Tell lanes where the largest scores of two lines are far apart; lines of zeros do not count."""
    vector = ir.VectorType(element, LANES)
    none, far = ir.Constant(vector, None), ir.Constant(vector, [float("inf")] * LANES)
    least, most, peak = (alloca_once(builder, vector) for _ in range(3))
    builder.store(far, least)
    builder.store(none, most)
    with for_range(builder, count) as line:
        builder.store(none, peak)
        with for_range(builder, length) as entry:
            at = builder.add(builder.mul(line.index, apart), builder.mul(entry.index, step))
            value = load(builder, source, place(builder, at), element)
            builder.store(_more(builder, builder.load(peak), value), peak)
        top = builder.load(peak)
        builder.store(_more(builder, top, builder.load(most)), most)
        counted = builder.select(builder.fcmp_ordered("==", top, none), far, top)
        builder.store(_less(builder, counted, builder.load(least)), least)
    bound = builder.fmul(builder.load(most), ir.Constant(vector, [WIDE] * LANES))
    return builder.fcmp_ordered("<", builder.load(least), bound)


@intrinsic
def wide_lanes(typing: Any, raw: Any, rows: Any, cols: Any, row_size: Any) -> Any:
    """Tell in which lanes (one bit each) rows or columns differ by orders of magnitude."""
    signature = types.int64(raw, types.int64, types.int64, row_size)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (source,) = pointers(context, builder, signature, args, 0)
        element, (_, rows, cols, _) = context.get_value_type(signature.args[0].dtype), args
        apart, one = index(row_size.literal_value), index(1)
        of_rows = _wide_lines(builder, source, element, rows, apart, cols, one)
        of_cols = _wide_lines(builder, source, element, cols, one, rows, apart)
        return builder.zext(builder.bitcast(builder.or_(of_rows, of_cols), BITS), I64)

    return signature, generate


def _sorted(builder: Any, values: Sequence[Any]) -> list[Any]:
    x = list(values)
    for a, b in network(len(x)):
        x[a], x[b] = _more(builder, x[a], x[b]), _less(builder, x[a], x[b])
    return x


@intrinsic
def middle_wide(
    typing: Any, raw: Any, lines: Any, apart: Any, step: Any, others: Any, mine: Any, floor: Any, keep: Any, shelf: Any,
    size: Any,
) -> Any:  # fmt: skip
    """Set the price of every line half-way between the keep-th and the next largest of `raw - others` along it.

    Lines begin `apart` places from each other, their entries are `step` apart. Prices never fall below `floor`;
    `shelf` is scratch for `size` places.
    """
    ints, count = types.int64, size.literal_value
    signature = types.void(raw, ints, ints, ints, others, mine, types.float64, ints, shelf, size)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, prices, target, spare = pointers(context, builder, signature, args, 0, 4, 5, 8)
        element, vector = context.get_value_type(signature.args[0].dtype), ir.VectorType(DOUBLE, HALF)
        low = builder.insert_element(ir.Constant(vector, ir.Undefined), args[6], ir.Constant(I32, 0))
        low = builder.shuffle_vector(low, low, ir.Constant(ir.VectorType(I32, HALF), [0] * HALF))
        nth = builder.mul(args[7], index(HALF))
        with for_range(builder, args[1]) as line, for_range(builder, index(2)) as half:
            lane, values = builder.mul(half.index, index(HALF)), []
            for p in range(count):
                at = builder.add(builder.mul(line.index, args[2]), builder.mul(index(p), args[3]))
                entry = load(builder, source, builder.add(place(builder, at), lane), element, HALF)
                other = load(builder, prices, builder.add(index(p * LANES), lane), DOUBLE, HALF)
                values.append(builder.fsub(_double(builder, entry, HALF), other))
            for p, value in enumerate(_sorted(builder, values)):
                store(builder, value, spare, index(p * HALF))
            below = load(builder, spare, nth, DOUBLE, HALF)
            above = load(builder, spare, builder.sub(nth, index(HALF)), DOUBLE, HALF)
            # Half the distance: the sum of both could overflow, and of two neighbours would round past them.
            distance = builder.fmul(builder.fsub(above, below), ir.Constant(vector, [0.5] * HALF))
            price = _more(builder, builder.fadd(below, distance), low)
            store(builder, price, target, builder.add(place(builder, line.index), lane))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def decide(typing: Any, raw: Any, u: Any, v: Any, tied: Any, rows: Any, cols: Any, row_size: Any) -> Any:
    """Write 0 to `tied` where `raw - v` reaches `u`, which is kept, and -1 elsewhere."""
    signature = types.void(raw, u, v, tied, types.int64, types.int64, row_size)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, row_price, col_price, target = pointers(context, builder, signature, args, 0, 1, 2, 3)
        element = context.get_value_type(signature.args[0].dtype)
        with for_range(builder, args[4]) as row, for_range(builder, args[5]) as col:
            at = place(builder, builder.add(builder.mul(row.index, index(row_size.literal_value)), col.index))
            rest = builder.fsub(
                _double(builder, load(builder, source, at, element), LANES),
                load(builder, col_price, place(builder, col.index), DOUBLE),
            )
            kept = builder.fcmp_ordered(">=", rest, load(builder, row_price, place(builder, row.index), DOUBLE))
            store(builder, builder.select(kept, constant(0), constant(-1)), target, at)
        return context.get_dummy_value()

    return signature, generate


@borrow
def _loosen(floors: Lanes, prices: Floats, length: int) -> None:
    """Let lines without a price keep fewer entries than their limit."""
    for at in range(length * LANES):
        floors[at] = np.int32(0) if prices[at] == 0.0 else np.int32(NO_FLOOR)


@borrow
def _write(duals: Duals, tiles: Order, length: int, prices: Floats, lanes: int) -> None:
    for lane in range(LANES):
        if (lanes >> lane) & 1:
            for i in range(length):
                duals[tiles[lane], i] = prices[i * LANES + lane]


@cache
def wide_wave(row_size: int, col_size: int, wide: int) -> Callable[..., Any]:
    """Make the kernel; arguments as for `integer_pass.wave`."""

    @jit
    def run(
        scores: Matrix, budget: Budget, sweeps: int, order: Order, count: int, mask: Bools, row_duals: Duals,
        col_duals: Duals,
    ) -> int:  # fmt: skip
        """Solve the wide tiles among the first `count` of `order`; leave the others at its front, give their number."""
        rows, cols = budget.rows, budget.cols
        raw, tied = np.full(col_size * row_size * LANES, -np.inf, scores.dtype), aligned(col_size * row_size * LANES)
        tied[:] = -1
        u, v, shelf = np.zeros(col_size * LANES), np.zeros(row_size * LANES), np.empty(max(row_size, col_size) * LANES)
        zero = aligned(max(row_size, col_size) * LANES)
        row_floor, col_floor = aligned(col_size * LANES), aligned(row_size * LANES)
        row_floor[:] = col_floor[:] = NO_FLOOR
        peak, starts, floor = np.empty(LANES, scores.dtype), new_starts(), 0.0 if budget.at_most else -np.inf
        left = 0
        for first in range(0, count, LANES):
            locate(starts, order, first, count, scores, mask, rows, cols)
            peak[:] = 0
            gather(scores, starts.scores, starts.stride[0], raw, peak, rows, cols, row_size, wide)
            found = wide_lanes(raw, rows, cols, row_size)
            fits = 0
            if found:
                u[:] = 0.0
                for _ in range(sweeps):
                    middle_wide(raw, cols, 1, row_size, u, v, floor, budget.col_keep, shelf, col_size)
                    middle_wide(raw, rows, row_size, 1, v, u, floor, budget.row_keep, shelf, row_size)
                decide(raw, u, v, tied, rows, cols, row_size)
                if budget.at_most:
                    _loosen(row_floor, u, rows)
                    _loosen(col_floor, v, cols)
                row_keep, col_keep = np.int32(budget.row_keep), np.int32(budget.col_keep)
                fits = found & fitting(tied, rows, row_size, 1, zero, zero, row_floor, row_keep, row_size)
                fits &= fitting(tied, cols, 1, row_size, zero, zero, col_floor, col_keep, col_size)
                fits &= proving(raw, tied, u, v, rows, cols, row_size, 1)
                _write(row_duals, starts.tile, rows, u, fits)
                _write(col_duals, starts.tile, cols, v, fits)
                scatter_mask(tied, zero, zero, mask, starts.mask, starts.stride[1], rows, cols, row_size, wide)
            left = keep_rest(order, first, count, fits, left)
        return left

    return run
