"""First pass of the tile certificate, vectorised over 64 columns; like `tiles`, it shares no code with any solver.

A tile is optimal if its entries satisfy complementary slackness and every row and column count equals its budget. Most
tiles are; the pass sums their kept scores and leaves the other tiles to `tiles`. The 64 lanes are divided into slots,
one for each tile; lanes of a slot beyond the tile's columns, and slots beyond the last tile, are masked off. If tiles
of 4 columns do not fill the 64 lanes, the second tile of each 8 lanes is masked off, too, and left to `tiles`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from masksmith._panels import Bools, Duals, Matrix
from masksmith.kernels.jit import alloca_once, for_range, intrinsic, jit, types

WIDTH, LANES = 64, 8
PARTS = range(WIDTH // LANES)
SLOTS = (4, 8, 16, 32, 64)
BIT, BYTE, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)
FLOAT, DOUBLE = ir.FloatType(), ir.DoubleType()
SUFFIXES = {BYTE: "i8", FLOAT: "f32", DOUBLE: "f64"}
"""Endings of the names of LLVM's masked loads, by element type."""
DOUBLES = ir.VectorType(DOUBLE, LANES)
PAIRWISE = (
    (1, 0x5555555555555555), (2, 0x3333333333333333), (4, 0x0F0F0F0F0F0F0F0F), (8, 0x00FF00FF00FF00FF),
    (16, 0x0000FFFF0000FFFF), (32, 0x00000000FFFFFFFF),
)  # fmt: skip
"""Shifts and masks of the steps of a parallel bit count: step k adds neighbouring fields of 2^k bits."""

Numbers = npt.NDArray[np.int64]


def slot_width(cols: int) -> int:
    """Return the number of lanes of the slot for a tile of `cols` columns."""
    return cols if cols in SLOTS else next(slot for slot in SLOTS[1:] if slot >= cols)


def _index(value: int) -> Any:
    return ir.Constant(I64, value)


def _shuffle(builder: Any, a: Any, b: Any, picks: Sequence[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(picks)), list(picks)))


def _repeat(builder: Any, values: Sequence[Any], width: int) -> Any:
    """Return a vector of `width` lanes in which every value fills equally many consecutive lanes."""
    vector = ir.Constant(ir.VectorType(values[0].type, width), ir.Undefined)
    for k, value in enumerate(values):
        vector = builder.insert_element(vector, value, ir.Constant(I32, k))
    return _shuffle(builder, vector, vector, [lane * len(values) // width for lane in range(width)])


def _join(builder: Any, vectors: Sequence[Any]) -> Any:
    """Concatenate equally long vectors; their number is a power of two."""
    while len(vectors) > 1:
        both = range(2 * vectors[0].type.count)
        vectors = [_shuffle(builder, a, b, both) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
    return vectors[0]


def _load(builder: Any, data: Any, at: Any, element: Any, width: int, active: Any = None) -> Any:
    """Load a vector; with `active`, only the lanes flagged there, and 0 in the others."""
    vector = ir.VectorType(element, width)
    pointer = builder.bitcast(builder.gep(data, [at]), vector.as_pointer())
    if active is None:
        return builder.load(pointer, align=1)
    name, module = f"llvm.masked.load.v{width}{SUFFIXES[element]}.p0", builder.module
    kind = ir.FunctionType(vector, [pointer.type, I32, active.type, vector])
    masked = module.globals.get(name) or ir.Function(module, kind, name)
    return builder.call(masked, [pointer, ir.Constant(I32, 1), active, ir.Constant(vector, None)])


def _at_least(builder: Any, value: Any, floor: Any) -> Any:
    """Return `max(value, floor)`; NaN stays NaN."""
    return builder.select(builder.fcmp_ordered("<", value, floor), floor, value)


def _violation_flags(builder: Any, w: Any, u: Any, v: Any, keep: Any, exact: bool) -> Any:
    """Flag lanes that violate complementary slackness; unless `exact`, also those where w equals fl(u + v).

    fl(u + v) is the sum rounded to float64. Rounding is monotone: where w differs from fl(u + v), w is on the same
    side of u + v. Where they are equal, the rounding error of the sum (Knuth's TwoSum) decides. This error is too small
    to change the sign of a non-zero difference.
    """
    total = builder.fadd(u, v)
    if not exact:
        right = builder.select(keep, builder.fcmp_ordered(">", w, total), builder.fcmp_ordered("<", w, total))
        return builder.not_(right)
    part = builder.fsub(total, u)
    error = builder.fadd(builder.fsub(u, builder.fsub(total, part)), builder.fsub(v, part))
    side = builder.fsub(builder.fsub(w, total), error)
    return builder.fcmp_unordered("<", builder.select(keep, side, builder.fneg(side)), ir.Constant(DOUBLES, None))


def _add_up(builder: Any, vectors: Sequence[Any], slot: int) -> Any:
    """Sum pairwise until every slot is one number."""
    run = 1
    while run < slot:
        if len(vectors) > 1:
            pairs, width = list(zip(vectors[::2], vectors[1::2], strict=True)), 2 * LANES
        else:
            pairs, width = [(vectors[0], vectors[0])], vectors[0].type.count
        even, odd = range(0, width, 2), range(1, width, 2)
        vectors = [builder.fadd(_shuffle(builder, a, b, even), _shuffle(builder, a, b, odd)) for a, b in pairs]
        run *= 2
    return _join(builder, vectors)


def _count_mismatch(builder: Any, bits: Any, slot: int, keep: Any) -> Any:
    """Return a word that is 0 within every slot that has exactly `keep` bits set, and non-zero within the others."""
    run = 1
    for shift, field in PAIRWISE[: slot.bit_length() - 1]:
        moved = builder.lshr(bits, _index(shift))
        bits = builder.add(builder.and_(bits, _index(field)), builder.and_(moved, _index(field)))
        run *= 2
    return builder.xor(bits, builder.mul(keep, _index(sum(1 << first for first in range(0, WIDTH, slot)))))


class _Group:
    """Offsets and active lanes of the tiles that are checked together in 64 lanes, as 8 parts of 8 lanes.

    Attributes:
        tile: Index of the group's first tile in the panel.
        tiles: Of each part, the numbers of the tiles in it, within the group.
        within: Of each part, the place of its first lane in the slot of that lane's tile.
        last: Number of the last tile, within the group.
        cols: Columns of a tile.
        active: Of each part, the lanes that are used; None if all are.
    """

    def __init__(self, builder: Any, slot: int, fills_lanes: bool, cols: Any, tile: Any, count: Any) -> None:
        self.builder, self.fills_lanes, self.tile = builder, fills_lanes, tile
        self.tiles = [range(k * LANES // slot, max(k * LANES // slot + 1, (k + 1) * LANES // slot)) for k in PARTS]
        self.within = [k * LANES % slot for k in PARTS]
        self.last = builder.sub(count, _index(1))
        self.cols = _index(slot) if fills_lanes else cols
        self.active = None if fills_lanes else [self._active(k, count) for k in PARTS]

    def _active(self, k: int, count: Any) -> Any:
        place = ir.Constant(ir.VectorType(I64, LANES), [self.within[k] + lane for lane in range(LANES)])
        inside = self.builder.icmp_signed("<", place, _repeat(self.builder, [self.cols], LANES))
        used = self.builder.icmp_signed("<", _index(self.tiles[k][0]), count)
        return self.builder.and_(inside, _repeat(self.builder, [used], LANES))

    def offset(self, k: int) -> Any:
        """Return the column of the first lane of part `k`."""
        first = self.builder.mul(_index(self.tiles[k][0]), self.cols)
        return self.builder.add(first, _index(self.within[k]))

    def load(self, data: Any, at: Any, k: int, element: Any) -> Any:
        """Load part `k` of a row."""
        active = None if self.active is None else self.active[k]
        return _load(self.builder, data, self.builder.add(at, self.offset(k)), element, LANES, active)

    def load_mask(self, data: Any, at: Any) -> Any:
        """Load the mask of one row in all 64 lanes."""
        if self.fills_lanes:
            return _load(self.builder, data, at, BYTE, WIDTH)
        return _join(self.builder, [self.load(data, at, k, BYTE) for k in PARTS])

    def row_duals(self, data: Any, k: int, rows: Any, row: Any) -> Any:
        """Return, for every lane of part `k`, the dual of its tile's row."""
        duals = []
        for t in self.tiles[k]:
            here = self.builder.icmp_signed("<", _index(t), self.last)
            tile = _index(t) if self.fills_lanes else self.builder.select(here, _index(t), self.last)
            at = self.builder.add(self.builder.mul(self.builder.add(self.tile, tile), rows), row)
            duals.append(self.builder.load(self.builder.gep(data, [at])))
        return _repeat(self.builder, duals, LANES)


@intrinsic
def _check(
    typing: Any, scores: Any, mask: Any, at: Any, cols: Any, tile: Any, count: Any, u: Any, v: Any, rows: Any,
    floor: Any, row_keep: Any, col_keep: Any, kept: Any, mismatch: Any, slot: Any, fills_lanes: Any, exact: Any,
) -> Any:  # fmt: skip
    """Check `count` neighbouring tiles; return whether any entry violates complementary slackness.

    Args:
        scores, mask: Of the panel.
        at: Offset of the first tile's first entry.
        cols, rows: Size of a tile.
        tile: Index of the first tile.
        u, v: Duals of the panel, `[down, across, rows]` and `[down, across, cols]`.
        floor: Lower bound that duals are clamped to.
        row_keep, col_keep: Budgets.
        kept: `[64 / slot]`, written: score kept by each tile.
        mismatch: `[1]`, written: non-zero bits within the slots of tiles where a count differs from its budget.
        slot: Lanes per tile, a literal.
        fills_lanes: Whether the tiles fill all 64 lanes, a literal.
        exact: Whether entries with `w = fl(u + v)` are decided exactly (1) or reported as violations (0), a literal.
    """
    ints = types.int64
    signature = types.boolean(
        scores,
        mask,
        ints,
        ints,
        ints,
        ints,
        u,
        v,
        ints,
        types.float64,
        ints,
        ints,
        kept,
        mismatch,
        slot,
        fills_lanes,
        exact,
    )
    size, is_full, precise = slot.literal_value, bool(fills_lanes.literal_value), bool(exact.literal_value)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = {k: context.make_array(signature.args[k])(context, builder, args[k]) for k in (0, 1, 6, 7, 12, 13)}
        source, mask_data, row_dual_data, col_dual_data, sums, flags = (array.data for array in arrays.values())
        _, _, at, cols, tile, count, _, _, rows, floor, row_keep, col_keep, *_ = args
        # Distance between rows of the mask in bytes. Its entries have one byte, so this is also the distance in
        # entries, for the scores, too.
        stride = builder.extract_value(arrays[1].strides, 0)
        element = context.get_value_type(signature.args[0].dtype)
        group = _Group(builder, size, is_full, cols, tile, count)
        first_col = builder.mul(tile, cols)
        least, zero = _repeat(builder, [floor], LANES), ir.Constant(DOUBLES, None)
        duals = [_at_least(builder, group.load(col_dual_data, first_col, k, DOUBLE), least) for k in PARTS]
        wrong, mismatches = alloca_once(builder, ir.VectorType(BIT, LANES)), alloca_once(builder, I64)
        used, totals = alloca_once(builder, ir.VectorType(BYTE, WIDTH)), [alloca_once(builder, DOUBLES) for _ in PARTS]
        for place in (wrong, mismatches, used, *totals):
            builder.store(ir.Constant(place.type.pointee, None), place)
        with for_range(builder, rows) as row:
            first = builder.add(at, builder.mul(row.index, stride))
            ones = group.load_mask(mask_data, first)
            keeps = builder.icmp_unsigned("!=", ones, ir.Constant(ones.type, None))
            builder.store(builder.add(builder.load(used), ones), used)
            bits = _count_mismatch(builder, builder.bitcast(keeps, I64), size, row_keep)
            builder.store(builder.or_(builder.load(mismatches), bits), mismatches)
            for k in PARTS:
                own = _at_least(builder, group.row_duals(row_dual_data, k, rows, row.index), least)
                w = group.load(source, first, k, element)
                w = w if element == DOUBLE else builder.fpext(w, DOUBLES)
                keep = _shuffle(builder, keeps, keeps, range(k * LANES, (k + 1) * LANES))
                bad = _violation_flags(builder, w, own, duals[k], keep, precise)
                bad = bad if group.active is None else builder.and_(bad, group.active[k])
                builder.store(builder.or_(builder.load(wrong), bad), wrong)
                builder.store(builder.fadd(builder.load(totals[k]), builder.select(keep, w, zero)), totals[k])
        added = _add_up(builder, [builder.load(total) for total in totals], size)
        builder.store(added, builder.bitcast(sums, added.type.as_pointer()), align=8)
        budget = _repeat(builder, [builder.trunc(col_keep, BYTE)], WIDTH)
        columns = builder.icmp_unsigned("!=", builder.load(used), budget)
        columns = columns if group.active is None else builder.and_(columns, _join(builder, group.active))
        builder.store(builder.or_(builder.load(mismatches), builder.bitcast(columns, I64)), flags)
        return builder.icmp_unsigned("!=", builder.bitcast(builder.load(wrong), BYTE), BYTE(0))

    return signature, generate


@cache
def compile_first_pass(slot: int, fills_lanes: bool) -> Callable[..., int]:
    """Compile the pass for slots of `slot` lanes; `fills_lanes`: whether the tiles of every group fill all 64 lanes."""
    is_full = int(fills_lanes)

    @jit
    def check(
        scores: Matrix, mask: Bools, row_duals: Duals, col_duals: Duals, row_keep: int, col_keep: int, floor: float,
        objective: Duals, unproved: Numbers,
    ) -> int:  # fmt: skip
        """Write every tile's kept score to `objective`, and the indices of tiles not proved optimal to `unproved`.

        Returns the number of indices written. Duals are clamped to at least `floor`; other arguments as for
        `tiles.certify`.
        """
        down, across, rows = row_duals.shape
        cols, tiles_per_group, unproved_count = col_duals.shape[2], 64 // slot, 0
        mismatch, kept = np.zeros(1, np.int64), np.zeros(64 // slot)
        for i in range(down):
            done = 0
            while done < across:
                # The last group is shifted to overlap the previous one, if it would be incomplete.
                t = done if done + tiles_per_group <= across or not is_full else across - tiles_per_group
                count, at, tile = min(tiles_per_group, across - t), (i * rows * across + t) * cols, i * across + t
                wrong = _check(
                    scores, mask, at, cols, tile, count, row_duals, col_duals, rows, floor, row_keep, col_keep, kept,
                    mismatch, slot, is_full, 0,
                )  # fmt: skip
                if wrong:
                    wrong = _check(
                        scores, mask, at, cols, tile, count, row_duals, col_duals, rows, floor, row_keep, col_keep,
                        kept, mismatch, slot, is_full, 1,
                    )  # fmt: skip
                for k in range(count):
                    objective[i, t + k] = kept[k]
                if wrong or mismatch[0] != 0:
                    for k in range(done - t, count):
                        if wrong or ((mismatch[0] >> (k * slot)) << (64 - slot)) != 0:
                            unproved[unproved_count] = tile + k
                            unproved_count += 1
                done = t + count
        return unproved_count

    return check
