"""Edge relaxation, the inner loop of the shortest-path searches: all edges of one node, in vectors of 8."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from masksmith.kernels.dual_ascent.simd.lanes import pointers
from masksmith.kernels.dual_ascent.simd.vectors import index, load, splat, store
from masksmith.kernels.jit import COMPILED, for_range, intrinsic, types
from masksmith.kernels.tile import Floats, Ints

VECTOR_LENGTH = 8


def _relax_plain(costs: Floats, first: int, start: float, node: int, distance: Floats, predecessor: Ints) -> None:
    for k in range(len(distance)):
        d = start + costs[first + k]
        if d < distance[k]:
            distance[k], predecessor[k] = d, node


@intrinsic
def _relax_vectors(typing: Any, costs: Any, first: Any, start: Any, node: Any, distance: Any, predecessor: Any) -> Any:
    signature = types.void(costs, types.int64, types.float64, types.int64, distance, predecessor)
    double, long = ir.DoubleType(), ir.IntType(64)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        cost_data, distance_data, predecessor_data = pointers(context, builder, signature, args, 0, 4, 5)
        _, first, start, node, distance, _ = args
        length = context.make_array(signature.args[4])(context, builder, distance).nitems
        start_vector = splat(builder, start, VECTOR_LENGTH)
        node_vector = splat(builder, node, VECTOR_LENGTH)
        with for_range(builder, builder.sdiv(length, index(VECTOR_LENGTH))) as step:
            k = builder.mul(step.index, index(VECTOR_LENGTH))
            costs = load(builder, cost_data, builder.add(first, k), double, VECTOR_LENGTH)
            new = builder.fadd(start_vector, costs)
            old = load(builder, distance_data, k, double, VECTOR_LENGTH)
            is_shorter = builder.fcmp_ordered("<", new, old)
            store(builder, builder.select(is_shorter, new, old), distance_data, k)
            old_predecessors = load(builder, predecessor_data, k, long, VECTOR_LENGTH)
            store(builder, builder.select(is_shorter, node_vector, old_predecessors), predecessor_data, k)
        return context.get_dummy_value()

    return signature, generate


relax = _relax_vectors if COMPILED else _relax_plain
"""Set `distance = min(distance, start + costs[first:])`, and `predecessor = node` where that decreases it, in place.

`len(distance)` must be a multiple of `VECTOR_LENGTH`.
"""
