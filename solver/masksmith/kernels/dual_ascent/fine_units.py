"""Vector operations of the tie pass: residual scores in a fine unit, and duals that fit a fixed mask.

Comparisons stay exact under rounding: a residual score becomes an even integer only if it was exactly that integer, and
an odd one otherwise, while duals stay even. So `score >= u + v` and `score <= u + v` hold after rounding if and only if
they held before.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from masksmith.kernels.jit import alloca_once, for_range, intrinsic, types

from .simd.lanes import constant64, exponents, lane_offset, pointers, power_of_two
from .simd.vectors import BITS, I32, I64, LANES, constant, floor_sticky, fold, index, load, minimum, splat, store

UNBOUNDED = 1 << 30
"""Bound that stands for "no constraint"."""
CLIP = 2.0**26
"""Residual scores are halved, and the halves are clipped to at most this magnitude."""


@intrinsic
def fine_scales(typing: Any, peak: Any, zoom: Any, factor: Any, unit: Any) -> Any:
    """Write each lane's unit, `zoom` bits finer than that of the integer pass, and `factor`, 1 / (2 unit).

    A unit of 2^900 or more is written as 0. `peak` holds each lane's largest score.
    """
    signature = types.void(peak, types.int64, factor, unit)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, factors, units = pointers(context, builder, signature, args, 0, 2, 3)
        _, zoom, _, _ = args
        element = context.get_value_type(signature.args[0].dtype)
        top = load(builder, source, index(0), element)
        exponent = builder.add(exponents(builder, top), splat(builder, zoom))
        exponent = minimum(builder, exponent, constant64(1000))
        empty = builder.fcmp_ordered("==", top, ir.Constant(top.type, None))
        exponent = builder.select(empty, constant64(0), exponent)
        store(builder, power_of_two(builder, builder.sub(exponent, constant64(1))), factors, index(0))
        scale = power_of_two(builder, builder.sub(constant64(0), exponent))
        in_range = builder.icmp_signed(">", exponent, constant64(-900))
        store(builder, builder.select(in_range, scale, ir.Constant(scale.type, None)), units, index(0))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def residual_scores(
    typing: Any, raw: Any, u: Any, v: Any, factor: Any, noise: Any, x: Any, perturbed: Any, rows: Any, cols: Any,
    row_size: Any,
) -> Any:  # fmt: skip
    """Write `x = round(2 factor (raw - v - u))`, clipped, rounded as in `floor_sticky`, and `perturbed = x + noise`.

    All are in lanes, `[place * 16 + lane]`, except `noise`, which has one value per place; u and v are float64.
    """
    signature = types.void(raw, u, v, factor, noise, x, perturbed, types.int64, types.int64, row_size)
    doubles = ir.VectorType(ir.DoubleType(), LANES)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, row_dual, col_dual, factors, noise_data, target, perturbed_data = pointers(
            context, builder, signature, args, 0, 1, 2, 3, 4, 5, 6
        )
        *_, rows, cols, _ = args
        element = context.get_value_type(signature.args[0].dtype)
        scale, double = load(builder, factors, index(0), doubles.element), doubles.element
        with for_range(builder, rows) as row:
            own = load(builder, row_dual, lane_offset(builder, row.index), double)
            with for_range(builder, cols) as col:
                at = builder.add(builder.mul(row.index, index(row_size.literal_value)), col.index)
                w = load(builder, source, lane_offset(builder, at), element)
                w = w if isinstance(element, ir.DoubleType) else builder.fpext(w, doubles)
                rest = builder.fsub(w, load(builder, col_dual, lane_offset(builder, col.index), double))
                rest = builder.fmul(builder.fsub(rest, own), scale)
                for sign, bound in ((">", CLIP), ("<", -CLIP)):
                    limit = ir.Constant(doubles, [bound] * LANES)
                    rest = builder.select(builder.fcmp_ordered(sign, rest, limit), limit, rest)
                value = floor_sticky(builder, rest)
                store(builder, value, target, lane_offset(builder, at))
                shift = splat(builder, builder.load(builder.gep(noise_data, [at])))
                store(builder, builder.add(value, shift), perturbed_data, lane_offset(builder, at))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def dual_bounds(
    typing: Any, x: Any, perturbed: Any, u: Any, v: Any, row_bound: Any, col_bound: Any, rows: Any, cols: Any,
    row_size: Any,
) -> Any:  # fmt: skip
    """Write the bounds on duals that the mask `perturbed >= u + v` implies; overwrite `perturbed` by the mask.

    The mask is 0 where kept, -1 where dropped. A kept entry requires `u <= row_bound - v`, and has the `col_bound`
    `UNBOUNDED`; a dropped one requires `-v <= col_bound + u`, and has the `row_bound` `UNBOUNDED`.
    """
    signature = types.void(x, perturbed, u, v, row_bound, col_bound, types.int64, types.int64, row_size)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, perturbed_data, row_dual, col_dual, row_bounds, col_bounds = pointers(
            context, builder, signature, args, 0, 1, 2, 3, 4, 5
        )
        *_, rows, cols, _ = args
        even, unbounded = constant(-2), constant(UNBOUNDED)
        with for_range(builder, rows) as row:
            own = load(builder, row_dual, lane_offset(builder, row.index), I32)
            with for_range(builder, cols) as col:
                at = lane_offset(builder, builder.add(builder.mul(row.index, index(row_size.literal_value)), col.index))
                score = load(builder, source, at, I32)
                rest = builder.sub(
                    load(builder, perturbed_data, at, I32),
                    load(builder, col_dual, lane_offset(builder, col.index), I32),
                )
                kept = builder.icmp_signed(">=", rest, own)
                ceiling = builder.and_(builder.add(score, constant(1)), even)
                store(builder, builder.select(kept, builder.and_(score, even), unbounded), row_bounds, at)
                store(builder, builder.select(kept, unbounded, builder.neg(ceiling)), col_bounds, at)
                store(builder, builder.select(kept, constant(0), constant(-1)), perturbed_data, at)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def lower_duals(
    typing: Any, bounds: Any, lines: Any, line_stride: Any, entry_stride: Any, cross_duals: Any, own_duals: Any,
    size: Any,
) -> Any:  # fmt: skip
    """Lower each line's dual to at most `min(bounds + cross_duals)` along the line; arguments as in `simd.lanes`.

    Returns the lanes (one bit each) where no dual changed.
    """
    signature = types.int64(bounds, types.int64, types.int64, types.int64, cross_duals, own_duals, size)
    count = size.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, duals, target = pointers(context, builder, signature, args, 0, 4, 5)
        _, lines, line_stride, entry_stride, _, _, _ = args
        bits = alloca_once(builder, BITS)
        builder.store(ir.Constant(BITS, -1), bits)
        with for_range(builder, lines) as line:
            first, values = lane_offset(builder, builder.mul(line.index, line_stride)), []
            for p in range(count):
                bound = load(builder, source, first, I32)
                values.append(builder.add(bound, load(builder, duals, index(p * LANES), I32)))
                first = builder.add(first, lane_offset(builder, entry_stride))
            at = lane_offset(builder, line.index)
            old = load(builder, target, at, I32)
            new = minimum(builder, fold(builder, minimum, values), old)
            store(builder, new, target, at)
            same = builder.bitcast(builder.icmp_signed("==", new, old), BITS)
            builder.store(builder.and_(builder.load(bits), same), bits)
        return builder.zext(builder.load(bits), I64)

    return signature, generate


@intrinsic
def proved_lanes(
    typing: Any, raw: Any, dropped: Any, u: Any, v: Any, rows: Any, cols: Any, row_size: Any, strict: Any
) -> Any:  # fmt: skip
    """Return the lanes (one bit each) where the duals prove the mask `dropped` (0 kept, -1 dropped).

    Kept entries must have `raw >= u + v`, dropped ones `raw <= u + v`, and no sum may be rounded. With `strict` no
    entry may be equal, so that the optimum is unique, and sums may be rounded: their signs are exact (Knuth's TwoSum).
    """
    signature = types.int64(raw, dropped, u, v, types.int64, types.int64, row_size, strict)
    doubles, unique = ir.VectorType(ir.DoubleType(), LANES), bool(strict.literal_value)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, mask, row_dual, col_dual = pointers(context, builder, signature, args, 0, 1, 2, 3)
        _, _, _, _, rows, cols, _, _ = args
        element, zero = context.get_value_type(signature.args[0].dtype), ir.Constant(doubles, None)
        bits = alloca_once(builder, BITS)
        builder.store(ir.Constant(BITS, -1), bits)
        with for_range(builder, rows) as row:
            a = load(builder, row_dual, lane_offset(builder, row.index), doubles.element)
            with for_range(builder, cols) as col:
                at = lane_offset(builder, builder.add(builder.mul(row.index, index(row_size.literal_value)), col.index))
                b = load(builder, col_dual, lane_offset(builder, col.index), doubles.element)
                w = load(builder, source, at, element)
                w = w if isinstance(element, ir.DoubleType) else builder.fpext(w, doubles)
                total = builder.fadd(a, b)
                piece = builder.fsub(total, a)
                error = builder.fadd(builder.fsub(a, builder.fsub(total, piece)), builder.fsub(b, piece))
                side = builder.fsub(builder.fsub(w, total), error)
                kept = builder.icmp_signed("==", load(builder, mask, at, I32), constant(0))
                side = builder.select(kept, side, builder.fneg(side))
                holds = builder.fcmp_ordered(">" if unique else ">=", side, zero)
                if not unique:
                    holds = builder.and_(holds, builder.fcmp_ordered("==", error, zero))
                builder.store(builder.and_(builder.load(bits), builder.bitcast(holds, BITS)), bits)
        return builder.zext(builder.load(bits), I64)

    return signature, generate
