"""Vector operations on 16 tiles at once, one tile per lane: transposed loads and stores, quantising, threshold updates.

Lane arrays are flat, `[place * 16 + lane]`; entry (i, j) of a tile has place `i * row_size + j`, where `row_size` is
the size of the network that sorts rows. A line is a row or a column; the crossing lines of a row are the columns.
Functions that update lines take the places between neighbouring lines (`line_stride`) and between neighbouring entries
of a line (`entry_stride`): `row_size` and 1 for rows. Sizes and widths are literals: code is generated for each value.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from masksmith.kernels.jit import alloca_once, for_range, intrinsic, types

from .vectors import (
    BITS,
    I32,
    I64,
    INTS,
    LANES,
    add,
    constant,
    fold,
    from_lanes,
    index,
    join,
    load,
    maximum,
    maximum_float,
    median_pair,
    minimum,
    nth_pair,
    part,
    splat,
    store,
    to_lanes,
)

SCORE_BITS = 27
"""Quantised scores are below 2^27."""
MAX_DUAL = 1 << 28
"""Bound on the magnitude of duals, exclusive; beyond it 32-bit sums could wrap around."""
MIN_EXPONENT, MAX_EXPONENT = -950, 1074
"""Scores are scaled by 2^e; for `MIN_EXPONENT < e <= MAX_EXPONENT`, duals times 2^-e are exact in float64."""

LONGS, DOUBLES = ir.VectorType(I64, LANES), ir.VectorType(ir.DoubleType(), LANES)


def pointers(context: Any, builder: Any, signature: Any, args: Any, *which: int) -> list[Any]:
    """Return the data pointers of the array arguments `which`."""
    kinds = signature.args
    return [context.make_array(kinds[k])(context, builder, args[k]).data for k in which]


def lane_offset(builder: Any, at: Any) -> Any:
    """Return the offset of lane 0 of a place in a lane array."""
    return builder.mul(at, index(LANES))


def _start(builder: Any, starts: Any, lane: int) -> Any:
    return builder.load(builder.gep(starts, [index(lane)]))


def _store_per_lane(builder: Any, vectors: list[Any], width: int, target: Any, starts: Any, at: Any) -> None:
    """Store `width` consecutive elements of each lane's tile to `target[starts[lane] + at:]`."""
    lanes_per_vector = LANES // width
    for k, vector in enumerate(vectors):
        for lane in range(k * lanes_per_vector, (k + 1) * lanes_per_vector):
            first = (lane % lanes_per_vector) * width
            piece = part(builder, vector, first, width) if lanes_per_vector > 1 else vector
            store(builder, piece, target, builder.add(_start(builder, starts, lane), at))


@intrinsic
def gather(
    typing: Any, scores: Any, starts: Any, stride: Any, raw: Any, peak: Any, rows: Any, cols: Any, row_size: Any,
    width: Any,
) -> Any:  # fmt: skip
    """Copy 16 tiles into lanes and raise `peak` to their largest entries.

    Args:
        scores: Flat source; the tiles begin at `starts`, their rows are `stride` apart.
        raw: Lane array, written.
        peak: `[16]`, largest entry so far of each lane, changed in place.
        rows, cols: Size of a tile.
        row_size: Places per row in `raw`, a literal.
        width: Entries loaded at a time, a literal that divides `cols`.
    """
    signature = types.void(scores, starts, types.int64, raw, peak, types.int64, types.int64, row_size, width)
    count = width.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, begin, target, best = pointers(context, builder, signature, args, 0, 1, 3, 4)
        element = context.get_value_type(signature.args[0].dtype)
        _, _, stride, _, _, rows, cols, _, _ = args
        with for_range(builder, rows) as row, for_range(builder, builder.sdiv(cols, index(count))) as chunk:
            left = builder.mul(chunk.index, index(count))
            at = builder.add(builder.mul(row.index, stride), left)
            pieces = [
                load(builder, source, builder.add(_start(builder, begin, lane), at), element, count)
                for lane in range(LANES)
            ]
            lanes_per_vector = LANES // count
            joined = [join(builder, pieces[k : k + lanes_per_vector]) for k in range(0, LANES, lanes_per_vector)]
            vectors = to_lanes(builder, joined)
            first = builder.add(builder.mul(row.index, index(row_size.literal_value)), left)
            for j, vector in enumerate(vectors):
                store(builder, vector, target, lane_offset(builder, builder.add(first, index(j))))
            largest = fold(builder, maximum_float, [*vectors, load(builder, best, index(0), element)])
            store(builder, largest, best, index(0))
        return context.get_dummy_value()

    return signature, generate


def constant64(value: int) -> Any:
    """Return a vector with the same 64-bit integer in every lane."""
    return ir.Constant(LONGS, [value] * LANES)


def _exponent_bits(builder: Any, value: Any) -> Any:
    return builder.lshr(builder.bitcast(value, LONGS), constant64(52))


def exponents(builder: Any, peak: Any) -> Any:
    """Return the exponents e, at most `MAX_EXPONENT`, for which `2^26 <= peak * 2^e < 2^27`; 0 for a peak of 0."""
    value = peak if peak.type == DOUBLES else builder.fpext(peak, DOUBLES)
    biased = _exponent_bits(builder, value)
    # Subnormal doubles have a biased exponent of 0: multiply by 2^64 to normalise them first.
    raised = builder.fmul(value, ir.Constant(DOUBLES, [2.0**64] * LANES))
    raised = builder.sub(_exponent_bits(builder, raised), constant64(64))
    biased = builder.select(builder.icmp_signed("==", biased, constant64(0)), raised, biased)
    exponent = minimum(builder, builder.sub(constant64(SCORE_BITS + 1022), biased), constant64(MAX_EXPONENT))
    return builder.select(builder.fcmp_ordered("==", value, ir.Constant(DOUBLES, None)), constant64(0), exponent)


def power_of_two(builder: Any, exponent: Any) -> Any:
    """Return `2^exponent` as doubles, built from their bits; exponents must be in the range of normal doubles."""
    return builder.bitcast(builder.shl(builder.add(exponent, constant64(1023)), constant64(52)), DOUBLES)


@intrinsic
def scales(typing: Any, peak: Any, scale: Any, rescale: Any, unit: Any) -> Any:
    """Write, for each lane, the power of two that scales its largest score to just below 2^27, and its inverse.

    The power is written as two factors, `scale` and `rescale`, since one may be out of range; the inverse as `unit`.
    Returns the lanes (one bit each) whose duals float64 can represent; the other lanes get unit 0.
    """
    signature = types.int64(peak, scale, rescale, unit)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, first, second, units = pointers(context, builder, signature, args, 0, 1, 2, 3)
        element = context.get_value_type(signature.args[0].dtype)
        exponent = exponents(builder, load(builder, source, index(0), element))
        half = builder.ashr(exponent, constant64(1))
        rest, inverse = builder.sub(exponent, half), ir.Constant(DOUBLES, [1.0] * LANES)
        for power, target in ((half, first), (rest, second)):
            factor = power_of_two(builder, power)
            cast = factor if element == DOUBLES.element else builder.fptrunc(factor, ir.VectorType(element, LANES))
            store(builder, cast, target, index(0))
            inverse = builder.fmul(inverse, power_of_two(builder, builder.sub(constant64(0), power)))
        in_range = builder.icmp_signed(">", exponent, constant64(MIN_EXPONENT))
        store(builder, builder.select(in_range, inverse, ir.Constant(DOUBLES, None)), units, index(0))
        return builder.zext(builder.bitcast(in_range, BITS), I64)

    return signature, generate


@intrinsic
def quantise(typing: Any, raw: Any, scale: Any, rescale: Any, x: Any, rows: Any, cols: Any, row_size: Any) -> Any:
    """Write `x = floor(raw * scale * rescale)`, with one pair of factors per lane."""
    signature = types.void(raw, scale, rescale, x, types.int64, types.int64, row_size)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, first, second, target = pointers(context, builder, signature, args, 0, 1, 2, 3)
        element = context.get_value_type(signature.args[0].dtype)
        factors = [load(builder, factor, index(0), element) for factor in (first, second)]
        _, _, _, _, rows, cols, _ = args
        with for_range(builder, rows) as row, for_range(builder, cols) as col:
            at = builder.add(builder.mul(row.index, index(row_size.literal_value)), col.index)
            value = load(builder, source, lane_offset(builder, at), element)
            for factor in factors:
                value = builder.fmul(value, factor)
            store(builder, builder.fptosi(value, INTS), target, lane_offset(builder, at))
        return context.get_dummy_value()

    return signature, generate


def residuals(builder: Any, x: Any, duals: Any, first: Any, step: Any, count: int) -> list[Any]:
    """Load `x - duals` along a line of `count` entries; its places begin at `first` and are `step` apart."""
    values, at = [], lane_offset(builder, first)
    for p in range(count):
        entry = load(builder, x, at, I32)
        values.append(builder.sub(entry, load(builder, duals, index(p * LANES), I32)))
        at = builder.add(at, lane_offset(builder, step))
    return values


@intrinsic
def threshold_update(
    typing: Any, x: Any, lines: Any, line_stride: Any, entry_stride: Any, cross_duals: Any, own_duals: Any,
    floors: Any, keep: Any, over_relaxation_mask: Any, scratch: Any, size: Any, use_median: Any,
) -> Any:  # fmt: skip
    """Set each line's dual half-way between the keep-th and the next largest of `x - cross_duals` along the line.

    Args:
        x: Quantised scores in lanes.
        lines: Number of lines.
        line_stride, entry_stride: Places between lines, and between entries of a line.
        cross_duals: Duals of the crossing lines, in lanes.
        own_duals: Duals of the lines to update, in lanes, changed in place.
        floors: Lower bounds on the duals written.
        keep: Budget of each line; must be `size / 2` with `use_median`.
        over_relaxation_mask: All bits set (-1) to add half of each dual's change once more, 0 to add nothing.
        scratch: Work array for `size` places, unused with `use_median`.
        size: Size of the sorting network, a literal.
        use_median: Whether `keep` is `size / 2`, a literal; a cheaper network then suffices.
    """
    signature = types.void(
        x,
        types.int64,
        types.int64,
        types.int64,
        cross_duals,
        own_duals,
        floors,
        types.int64,
        types.int32,
        scratch,
        size,
        use_median,
    )
    count = size.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, duals, target, floor_data, work = pointers(context, builder, signature, args, 0, 4, 5, 6, 9)
        _, lines, line_stride, entry_stride, _, _, _, keep, over_relaxation_mask, _, _, _ = args
        drift_mask = splat(builder, over_relaxation_mask)
        with for_range(builder, lines) as line:
            first = builder.mul(line.index, line_stride)
            values = residuals(builder, source, duals, first, entry_stride, count)
            pair = median_pair(builder, values) if use_median.literal_value else nth_pair(builder, values, keep, work)
            high, low = pair
            own = lane_offset(builder, line.index)
            centre = builder.ashr(builder.add(builder.add(high, low), constant(1)), constant(1))
            drift = builder.ashr(builder.sub(centre, load(builder, target, own, I32)), constant(1))
            moved = builder.add(centre, builder.and_(drift, drift_mask))
            store(builder, maximum(builder, moved, load(builder, floor_data, own, I32)), target, own)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def balanced_lanes(
    typing: Any, x: Any, lines: Any, line_stride: Any, entry_stride: Any, cross_duals: Any, own_duals: Any,
    floors: Any, keep: Any, size: Any,
) -> Any:  # fmt: skip
    """Return the lanes (one bit each) where every line keeps `keep` entries, or fewer if its dual is at its floor.

    An entry is kept if `x >= cross_duals + own_duals`. Lanes with a dual of magnitude `MAX_DUAL` or more are not
    returned. Other arguments as for `threshold_update`.
    """
    signature = types.int64(
        x, types.int64, types.int64, types.int64, cross_duals, own_duals, floors, types.int32, size
    )  # fmt: skip
    count = size.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, duals, own_dual_data, floor_data = pointers(context, builder, signature, args, 0, 4, 5, 6)
        _, lines, line_stride, entry_stride, _, _, _, keep, _ = args
        bits = alloca_once(builder, BITS)
        builder.store(ir.Constant(BITS, -1), bits)
        budget = splat(builder, keep)
        with for_range(builder, lines) as line:
            at = lane_offset(builder, line.index)
            own, floor = load(builder, own_dual_data, at, I32), load(builder, floor_data, at, I32)
            first = builder.mul(line.index, line_stride)
            values = residuals(builder, source, duals, first, entry_stride, count)
            total = fold(builder, add, [builder.zext(builder.icmp_signed(">=", v, own), INTS) for v in values])
            is_at_floor = builder.icmp_signed("==", own, floor)
            may_keep_fewer = builder.and_(builder.icmp_signed("<", total, budget), is_at_floor)
            is_balanced = builder.or_(builder.icmp_signed("==", total, budget), may_keep_fewer)
            for sign, bound in (("<", MAX_DUAL), (">", -MAX_DUAL)):
                is_balanced = builder.and_(is_balanced, builder.icmp_signed(sign, own, constant(bound)))
            builder.store(builder.and_(builder.load(bits), builder.bitcast(is_balanced, BITS)), bits)
        return builder.zext(builder.load(bits), I64)

    return signature, generate


@intrinsic
def scatter_mask(
    typing: Any, x: Any, u: Any, v: Any, mask: Any, starts: Any, stride: Any, rows: Any, cols: Any, row_size: Any,
    width: Any,
) -> Any:  # fmt: skip
    """Write the masks `x >= u + v` of 16 tiles; they begin at `starts` in `mask`, whose rows are `stride` apart."""
    signature = types.void(x, u, v, mask, starts, types.int64, types.int64, types.int64, row_size, width)
    count, byte = width.literal_value, ir.VectorType(ir.IntType(8), LANES)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, row_duals, col_duals, target, begin = pointers(context, builder, signature, args, 0, 1, 2, 3, 4)
        _, _, _, _, _, stride, rows, cols, _, _ = args
        with for_range(builder, rows) as row, for_range(builder, builder.sdiv(cols, index(count))) as chunk:
            left = builder.mul(chunk.index, index(count))
            first = builder.add(builder.mul(row.index, index(row_size.literal_value)), left)
            own = load(builder, row_duals, lane_offset(builder, row.index), I32)
            duals = builder.gep(col_duals, [lane_offset(builder, left)])
            values = residuals(builder, source, duals, first, index(1), count)
            kept = [builder.zext(builder.icmp_signed(">=", value, own), byte) for value in values]
            at = builder.add(builder.mul(row.index, stride), left)
            _store_per_lane(builder, from_lanes(builder, kept), count, target, begin, at)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def scatter_duals(typing: Any, own_duals: Any, unit: Any, duals: Any, starts: Any, length: Any, width: Any) -> Any:
    """Write `own_duals * unit`, the duals of 16 tiles in float64, to `duals`; each lane's tile begins at `starts`."""
    signature = types.void(own_duals, unit, duals, starts, types.int64, width)
    count, double = width.literal_value, ir.DoubleType()

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, units, target, begin = pointers(context, builder, signature, args, 0, 1, 2, 3)
        factor = load(builder, units, index(0), double)
        _, _, _, _, length, _ = args
        with for_range(builder, builder.sdiv(length, index(count))) as chunk:
            left, duals = builder.mul(chunk.index, index(count)), []
            for j in range(count):
                dual = load(builder, source, lane_offset(builder, builder.add(left, index(j))), I32)
                duals.append(builder.fmul(builder.sitofp(dual, factor.type), factor))
            _store_per_lane(builder, from_lanes(builder, duals), count, target, begin, left)
        return context.get_dummy_value()

    return signature, generate
