"""Edge relaxation, the inner loop of the shortest-path searches: all edges of one node, in vectors of 8."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from masksmith.kernels.dual_ascent.simd.lanes import pointers
from masksmith.kernels.dual_ascent.simd.vectors import index, load, store
from masksmith.kernels.jit import COMPILED, for_range, intrinsic, types
from masksmith.kernels.tile import Floats, Ints

STEP = 8


def _relax_plain(costs: Floats, first: int, start: float, node: int, distance: Floats, predecessor: Ints) -> None:
    for k in range(len(distance)):
        d = start + costs[first + k]
        if d < distance[k]:
            distance[k], predecessor[k] = d, node


@intrinsic
def _relax_vectors(typing: Any, costs: Any, first: Any, start: Any, node: Any, distance: Any, predecessor: Any) -> Any:
    signature = types.void(costs, types.int64, types.float64, types.int64, distance, predecessor)
    doubles, longs = ir.VectorType(ir.DoubleType(), STEP), ir.VectorType(ir.IntType(64), STEP)

    def spread(builder: Any, value: Any, vector: Any) -> Any:
        one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), STEP), [0] * STEP))

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        edges, reach, parents = pointers(context, builder, signature, args, 0, 4, 5)
        length = context.make_array(signature.args[4])(context, builder, args[4]).nitems
        start, here = spread(builder, args[2], doubles), spread(builder, args[3], longs)
        with for_range(builder, builder.sdiv(length, index(STEP))) as step:
            k = builder.mul(step.index, index(STEP))
            d = builder.fadd(start, load(builder, edges, builder.add(args[1], k), doubles.element, STEP))
            old = load(builder, reach, k, doubles.element, STEP)
            better = builder.fcmp_ordered("<", d, old)
            store(builder, builder.select(better, d, old), reach, k)
            origins = load(builder, parents, k, longs.element, STEP)
            store(builder, builder.select(better, here, origins), parents, k)
        return context.get_dummy_value()

    return signature, generate


relax = _relax_vectors if COMPILED else _relax_plain
"""`distance = min(distance, start + costs[first:])`, and `predecessor = node` where that decreases it, in place."""
