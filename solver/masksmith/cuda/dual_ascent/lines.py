"""The two order statistics of a line (row or column) that bound its dual; on a device, they are computed in registers.

Entry (i, j) of a tile has place `i * pitch + j` in shared memory. A place holds `lanes` numbers, one for each tile of
the thread block, so that neighbouring threads, which work on neighbouring tiles, read neighbouring words.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from masksmith.cuda.jit import SIMULATED, wrap_int32
from masksmith.kernels.dual_ascent.simd.vectors import median_pair, sort
from masksmith.kernels.jit import COMPILED, intrinsic, types

I32, I64 = ir.IntType(32), ir.IntType(64)


def _residuals(context: Any, builder: Any, signature: Any, args: Any, size: int) -> list[Any]:
    """Load the values of a line minus the duals of the crossing lines.

    `args` are those of `pair`, by number: 0 `x`, 1 `first`, 2 `step`, 3 `duals`, 4 `begin`, 5 `lanes`.
    """
    x, duals = (context.make_array(signature.args[k])(context, builder, args[k]).data for k in (0, 3))
    index, dual_index = args[1], args[4]
    values = []
    for _ in range(size):
        entry, dual = builder.load(builder.gep(x, [index])), builder.load(builder.gep(duals, [dual_index]))
        values.append(builder.sub(entry, dual))
        index, dual_index = builder.add(index, args[2]), builder.add(dual_index, args[5])
    return values


@intrinsic
def _pair_in_registers(
    typing: Any, x: Any, first: Any, step: Any, duals: Any, begin: Any, lanes: Any, size: Any, keep: Any
) -> Any:  # fmt: skip
    signature = types.UniTuple(types.int32, 2)(  # type: ignore[no-untyped-call]
        x, types.int64, types.int64, duals, types.int64, types.int64, size, keep
    )  # fmt: skip
    count, nth = size.literal_value, keep.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = _residuals(context, builder, signature, args, count)
        if 2 * nth == count:
            pair = median_pair(builder, values)
        else:
            ordered = sort(builder, values)
            pair = ordered[nth - 1], ordered[nth]
        return context.make_tuple(builder, signature.return_type, pair)

    return signature, generate


def _pair_plain(
    x: Any, first: int, step: int, duals: Any, begin: int, lanes: int, size: int, keep: int
) -> tuple[int, int]:  # fmt: skip
    residuals = sorted((wrap_int32(x[first + p * step] - duals[begin + p * lanes]) for p in range(size)), reverse=True)
    return residuals[keep - 1], residuals[keep]


pair: Any = _pair_plain if SIMULATED or not COMPILED else _pair_in_registers
"""`pair(x, first, step, duals, begin, lanes, size, keep)` returns the keep-th and the (keep + 1)-th largest of
`x[first + p * step] - duals[begin + p * lanes]` for p from 0 to `size - 1`.

The differences are 32-bit integers, and wrap around. `size` and `keep` are compile-time constants, with
1 <= keep < size."""
