"""Product of a dense matrix and a sparse N:M matrix A, `y = x A^T`, by gathering columns of x.

Every group has exactly n entries, so all rows have the same length, and no row pointers are needed: an entry is a
value, and one byte for its position in the group. The batch is vectorised: `x` is transposed panel by panel, so that
each of its columns is a few whole vectors, and an entry of A costs one fused multiply-add per vector.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from .dual_ascent.simd.lanes import pointers
from .dual_ascent.simd.vectors import I64, LANES, element_bytes, index, load, splat, store, to_lanes
from .jit import alloca_once, for_range, inline, intrinsic, jit, types

Floats = npt.NDArray[np.float32]
"""float32, or float64, which compiles to kernels of its own."""
PAIR = 2
"""Rows of A processed together, so that enough independent sums fill the multiply-add pipeline."""
MAX_DOTS_BATCH = 2
"""Batches up to this size use `gather_dots`: in vectors over the batch most lanes would be unused."""


def _at(builder: Any, *parts: tuple[Any, Any]) -> Any:
    """Return the offset `sum(place * stride)`."""
    total = index(0)
    for place, stride in parts:
        total = builder.add(total, builder.mul(place, stride))
    return total


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Return the fused multiply-add `a * b + c`."""
    name = f"llvm.fma.v{LANES}f{8 * element_bytes(a.type.element)}"
    declared = builder.module.globals.get(name)
    if declared is None:
        declared = ir.Function(builder.module, ir.FunctionType(a.type, [a.type] * 3), name)
    return builder.call(declared, [a, b, c])


@intrinsic
def _two_rows(
    typing: Any, values: Any, places: Any, row: Any, groups: Any, n: Any, m: Any, panel: Any, width: Any, out: Any
) -> Any:  # fmt: skip
    """Write `out[k, :]`, the products of row `row + k` of A, k < `PAIR`, with a panel `[column, lane]` of x.

    `width`, a literal, is the number of vectors of 16 lanes per column of the panel.
    """
    signature = types.void(values, places, row, groups, n, m, panel, width, out)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value_data, place_data, panel_data, out_data = pointers(context, builder, signature, args, 0, 1, 6, 8)
        row, groups, n, m = args[2:6]
        vectors = signature.args[7].literal_value
        lanes, element = index(vectors * LANES), context.get_value_type(signature.args[0].dtype)
        kind = ir.VectorType(element, LANES)
        totals = [alloca_once(builder, kind) for _ in range(PAIR * vectors)]
        for total in totals:
            builder.store(ir.Constant(kind, None), total)
        per_row = builder.mul(groups, n)
        with for_range(builder, groups, intp=I64) as group:
            base = builder.mul(group.index, m)
            with for_range(builder, n, intp=I64) as slot:
                for k in range(PAIR):
                    entry = _at(builder, (builder.add(row, index(k)), per_row), (group.index, n))
                    entry = builder.add(entry, slot.index)
                    value = splat(builder, builder.load(builder.gep(value_data, [entry])))
                    place = builder.zext(builder.load(builder.gep(place_data, [entry])), I64)
                    column = builder.mul(builder.add(base, place), lanes)
                    for v in range(vectors):
                        lane = load(builder, panel_data, builder.add(column, index(v * LANES)), element)
                        total = totals[k * vectors + v]
                        builder.store(_fma(builder, value, lane, builder.load(total)), total)
        for k, total in enumerate(totals):
            store(builder, builder.load(total), out_data, index(k * LANES))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _transpose(typing: Any, source: Any, start: Any, stride: Any, target: Any, to: Any, step: Any) -> Any:
    """Transpose 16 x 16 elements: `target[to + j * step + i] = source[start + i * stride + j]`."""
    signature = types.void(source, start, stride, target, to, step)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        before, after = pointers(context, builder, signature, args, 0, 3)
        element = context.get_value_type(signature.args[0].dtype)
        rows = [
            load(builder, before, builder.add(args[1], builder.mul(args[2], index(i))), element) for i in range(LANES)
        ]
        for j, column in enumerate(to_lanes(builder, rows)):
            pointer = builder.gep(after, [builder.add(args[4], builder.mul(args[5], index(j)))])
            builder.store(column, builder.bitcast(pointer, column.type.as_pointer()), align=element_bytes(element))
        return context.get_dummy_value()

    return signature, generate


@inline
def _pack_panel(panel: Floats, x: Floats, first: int, count: int, lanes: int) -> None:
    """Write `panel[column * lanes + lane] = x[first + lane, column]`, zero beyond `count` lanes."""
    cols = x.shape[1]
    flat = x.reshape(x.size)
    whole_cols, whole = cols // LANES * LANES, count // LANES * LANES
    for lane in range(0, whole, LANES):
        for col in range(0, whole_cols, LANES):
            _transpose(flat, (first + lane) * cols + col, cols, panel, col * lanes + lane, lanes)
    for col in range(cols):
        for lane in range(whole if col < whole_cols else 0, count):
            panel[col * lanes + lane] = x[first + lane, col]
        for lane in range(count, lanes):
            panel[col * lanes + lane] = 0.0


@inline
def _write_block(block: Floats, y: Floats, row: int, first: int, count: int, lanes: int) -> None:
    """Write `y[first + lane, row + k] = block[k * lanes + lane]` for 16 rows of A, or up to the last column of y."""
    rows = min(LANES, y.shape[1] - row)
    flat = y.reshape(y.size)
    whole = count // LANES * LANES if rows == LANES else 0
    for lane in range(0, whole, LANES):
        _transpose(block, lane, lanes, flat, (first + lane) * y.shape[1] + row, y.shape[1])
    for lane in range(whole, count):
        for k in range(rows):
            y[first + lane, row + k] = block[k * lanes + lane]


@jit
def gather_rows(
    values: Floats, places: npt.NDArray[np.uint8], n: int, m: int, x: Floats, y: Floats, first: int, last: int
) -> None:
    """Write columns `first` to `last` of `y = x A^T`, vectorised over the batch.

    Args:
        values: Entries of A, `[rows, groups * n]`, rows a multiple of 16.
        places: Positions of the entries in their groups, as `values`.
        n: Entries per group.
        m: Length of a group.
        x: `[batch, groups * m]`, C-contiguous.
        y: `[batch, rows]`, C-contiguous, written; has fewer columns than `values` has rows if A was padded.
        first: First row of A, a multiple of 16.
        last: Row of A to stop before, a multiple of 16.
    """
    batch, groups = x.shape[0], x.shape[1] // m
    flat_values, flat_places = values.reshape(values.size), places.reshape(places.size)
    panel = np.empty(x.shape[1] * 4 * LANES, x.dtype)
    block = np.empty(LANES * 4 * LANES, x.dtype)
    start = 0
    while start < batch:
        remaining = batch - start
        vectors = 4 if remaining > 2 * LANES else (2 if remaining > LANES else 1)
        lanes = vectors * LANES
        count = min(remaining, lanes)
        _pack_panel(panel, x, start, count, lanes)
        for row in range(first, last, LANES):
            for k in range(0, LANES, PAIR):
                out = block[k * lanes :]
                if vectors == 4:
                    _two_rows(flat_values, flat_places, row + k, groups, n, m, panel, 4, out)
                elif vectors == 2:
                    _two_rows(flat_values, flat_places, row + k, groups, n, m, panel, 2, out)
                else:
                    _two_rows(flat_values, flat_places, row + k, groups, n, m, panel, 1, out)
            _write_block(block, y, row, start, count, lanes)
        start += count


@jit
def gather_dots(
    values: Floats, places: npt.NDArray[np.uint8], n: int, m: int, x: Floats, y: Floats, first: int, last: int
) -> None:
    """Do the same as `gather_rows`, for small batches: a dot product per element of y, with four partial sums."""
    groups = x.shape[1] // m
    for b in range(x.shape[0]):
        for row in range(first, min(last, y.shape[1])):
            a, c, d, e = x.dtype.type(0), x.dtype.type(0), x.dtype.type(0), x.dtype.type(0)
            entry = 0
            for group in range(groups // 4):
                base = group * 4 * m
                for slot in range(n):
                    at = entry + slot
                    a += values[row, at] * x[b, base + places[row, at]]
                    c += values[row, at + n] * x[b, base + m + places[row, at + n]]
                    d += values[row, at + 2 * n] * x[b, base + 2 * m + places[row, at + 2 * n]]
                    e += values[row, at + 3 * n] * x[b, base + 3 * m + places[row, at + 3 * n]]
                entry += 4 * n
            for group in range(groups // 4 * 4, groups):
                for slot in range(n):
                    a += values[row, entry + slot] * x[b, group * m + places[row, entry + slot]]
                entry += n
            y[b, row] = (a + c) + (d + e)
