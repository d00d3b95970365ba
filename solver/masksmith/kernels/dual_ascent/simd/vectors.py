"""LLVM vector code generators: sorting networks and transpositions over 16 lanes.

LLVM's auto-vectoriser fails on long straight-line loop bodies; explicit vector instructions work for every instruction
set and compile in a fraction of the time. All functions here run at compile time and emit instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

LANES = 16
I32, I64 = ir.IntType(32), ir.IntType(64)
BITS = ir.IntType(LANES)
INTS = ir.VectorType(I32, LANES)
Value = Any
Builder = Any


def splat(builder: Builder, value: Value, width: int = LANES) -> Value:
    """Return a vector of `width` lanes with a scalar in every lane."""
    vector = ir.VectorType(value.type, width)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(I32, width), [0] * width))


def constant(value: int) -> Value:
    """Return a vector with the same 32-bit integer in every lane."""
    return ir.Constant(INTS, [value] * LANES)


def load(builder: Builder, data: Value, at: Value, element: Any, width: int = LANES) -> Value:
    """Load `width` elements from `data[at:]`, without assuming vector alignment."""
    pointer = builder.bitcast(builder.gep(data, [at]), ir.VectorType(element, width).as_pointer())
    return builder.load(pointer, align=element_bytes(element))


def store(builder: Builder, vector: Value, data: Value, at: Value) -> None:
    """Store a vector to `data[at:]`, without assuming vector alignment."""
    pointer = builder.bitcast(builder.gep(data, [at]), vector.type.as_pointer())
    builder.store(vector, pointer, align=element_bytes(vector.type.element))


def element_bytes(element: Any) -> int:
    """Return the size of an LLVM number type in bytes."""
    if isinstance(element, ir.IntType):
        return int(element.width) // 8
    return 8 if isinstance(element, ir.DoubleType) else 4


def index(value: int) -> Value:
    """Return an offset as a 64-bit constant."""
    return ir.Constant(I64, value)


def add(builder: Builder, a: Value, b: Value) -> Value:
    """Lane-wise sum, as a step of `fold`."""
    return builder.add(a, b)


def floor_sticky(builder: Builder, value: Value) -> Value:
    """Return `2 * value` if `value` is an integer, else the odd integer `2 * floor(value) + 1`."""
    whole = builder.fptosi(value, INTS)
    back = builder.sitofp(whole, value.type)
    below = builder.sext(builder.fcmp_ordered("<", value, back), INTS)
    odd = builder.zext(builder.fcmp_ordered("!=", value, back), INTS)
    return builder.or_(builder.shl(builder.add(whole, below), constant(1)), odd)


def maximum(builder: Builder, a: Value, b: Value) -> Value:
    """Lane-wise maximum of integers."""
    return builder.select(builder.icmp_signed(">", a, b), a, b)


def minimum(builder: Builder, a: Value, b: Value) -> Value:
    """Lane-wise minimum of integers."""
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def maximum_float(builder: Builder, a: Value, b: Value) -> Value:
    """Lane-wise maximum of floats; `b` where one of them is NaN."""
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def minimum_float(builder: Builder, a: Value, b: Value) -> Value:
    """Lane-wise minimum of floats; `b` where one of them is NaN."""
    return builder.select(builder.fcmp_ordered("<", a, b), a, b)


def fold(builder: Builder, step: Callable[..., Value], values: Sequence[Value]) -> Value:
    """Combine values by `step` in a balanced tree, with shorter dependency chains than in a sequence."""
    while len(values) > 1:
        paired = [step(builder, a, b) for a, b in zip(values[::2], values[1::2], strict=False)]
        values = paired + list(values[len(paired) * 2 :])
    return values[0]


def network(size: int) -> list[tuple[int, int]]:
    """Return the comparators of Batcher's odd-even merge sort of `size` values, a power of two.

    A comparator is the pair of indices that receive the greater and the lesser of two values.
    """
    pairs = []
    p = 1
    while p < size:
        k = p
        while k >= 1:
            for j in range(k % p, size - k, 2 * k):
                pairs += [
                    (i + j, i + j + k)
                    for i in range(min(k, size - j - k))
                    if (i + j) // (2 * p) == (i + j + k) // (2 * p)
                ]
            k //= 2
        p *= 2
    return pairs


def sort(builder: Builder, values: Sequence[Value]) -> list[Value]:
    """Sort values lane by lane, in descending order."""
    x = list(values)
    for a, b in network(len(x)):
        x[a], x[b] = maximum(builder, x[a], x[b]), minimum(builder, x[a], x[b])
    return x


def median_pair(builder: Builder, values: Sequence[Value]) -> tuple[Value, Value]:
    """Return the (size/2)-th and the next largest value of each lane, from two sorted halves without a full merge."""
    half = len(values) // 2
    a, b = sort(builder, values[:half]), sort(builder, values[half:])[::-1]
    uppers = [maximum(builder, p, q) for p, q in zip(a, b, strict=True)]
    lowers = [minimum(builder, p, q) for p, q in zip(a, b, strict=True)]
    return fold(builder, minimum, uppers), fold(builder, maximum, lowers)


def nth_pair(builder: Builder, values: Sequence[Value], keep: Value, scratch: Value) -> tuple[Value, Value]:
    """Return the keep-th and the next largest value of each lane, for a `keep` that is known only at run time.

    `scratch` is a work array that receives all values, sorted.
    """
    for p, value in enumerate(sort(builder, values)):
        store(builder, value, scratch, ir.Constant(keep.type, p * LANES))
    nth = builder.mul(keep, ir.Constant(keep.type, LANES))
    before = builder.sub(nth, ir.Constant(keep.type, LANES))
    return load(builder, scratch, before, I32), load(builder, scratch, nth, I32)


def _shuffle(builder: Builder, a: Value, b: Value, picks: Sequence[int]) -> Value:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(picks)), list(picks)))


def join(builder: Builder, parts: Sequence[Value]) -> Value:
    """Concatenate equally long vectors, a power of two of them."""
    while len(parts) > 1:
        width = range(2 * parts[0].type.count)
        parts = [_shuffle(builder, a, b, width) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def part(builder: Builder, vector: Value, first: int, width: int) -> Value:
    """Extract `width` elements of a vector from `first` on."""
    return _shuffle(builder, vector, vector, range(first, first + width))


def to_lanes(builder: Builder, vectors: Sequence[Value]) -> list[Value]:
    """Transpose `[lane, place]`, stored contiguously in the vectors, to `[place, lane]`.

    Interleaving the two halves of such a sequence rotates the bits of the index by one; four rotations transpose it.
    """
    x, half = list(vectors), len(vectors) // 2
    low = [k // 2 + (LANES if k % 2 else 0) for k in range(LANES)]
    high = [pick + LANES // 2 for pick in low]
    for _ in range(4):
        if half == 0:
            order = [k // 2 + (LANES // 2 if k % 2 else 0) for k in range(LANES)]
            x = [_shuffle(builder, x[0], x[0], order)]
        else:
            x = [_shuffle(builder, x[k // 2], x[k // 2 + half], high if k % 2 else low) for k in range(2 * half)]
    return x


def from_lanes(builder: Builder, vectors: Sequence[Value]) -> list[Value]:
    """Transpose `[place, lane]` to `[lane, place]`, the inverse of `to_lanes`."""
    x, half = list(vectors), len(vectors) // 2
    even, odd = list(range(0, 2 * LANES, 2)), list(range(1, 2 * LANES, 2))
    for _ in range(4):
        if half == 0:
            x = [_shuffle(builder, x[0], x[0], [*range(0, LANES, 2), *range(1, LANES, 2)])]
        else:
            x = [
                _shuffle(builder, x[2 * (k % half)], x[2 * (k % half) + 1], even if k < half else odd)
                for k in range(2 * half)
            ]
    return x
