"""`permute`: searches for channel orders, with the method and matrix layout that fit pattern and axis."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from masksmith._errors import ScoresError, SolverError
from masksmith._numbers import is_number
from masksmith._solution import Solution
from masksmith._solve import solve
from masksmith._tensors import is_row_source, is_torch, read_tensor
from masksmith.patterns import NM, Axis, PatternError
from masksmith.patterns.grammar import read_pattern

from . import column_swapping, dual_guided_swaps
from .permutation import Permutation
from .time_limit import TimeLimit

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Axes = Literal["in", "out", "both"]

MIN_GAIN = 1e-4
"""A search over both axes ends after the first round whose gain is at most this share of the score kept before."""

STEPS = 10
"""Limit of the steps in each search along one axis, if a round searches both axes."""


def permute(
    scores: Any,
    pattern: NM | str,
    axis: Axes = "in",
    *,
    time_limit_s: float | None = 10.0,
    effort: int = 300,
    seed: int = 0,
    name: str | None = None,
) -> Permutation:
    """Search for an order of channels under which an N:M pattern keeps more score.

    Plain patterns: local search over swaps of two channels, with exact gains, and `effort` random perturbations (Pool
    and Yu, Channel Permutations for N:M Sparsity, NeurIPS 2021, for any n and m). Transposable patterns: swaps proposed
    by the tiles' duals and accepted by solving the tiles exactly, axis by axis until a round gains little. Equal
    arguments give the same order on every machine, unless the time limit ends the search.

    Args:
        scores: Importance per weight, `[out, in, *kernel]`, finite and non-negative; numpy array or torch tensor.
        pattern: N:M, plain or transposable.
        axis: Channels to permute: inputs, outputs, or both. Plain patterns gain only along their own axis.
        time_limit_s: Seconds of search after which the best order so far is returned; the current step is finished, and
            the compilation of kernels on a new machine does not count.
        effort: Number of random perturbations for plain patterns. Layers that are too wide for one search are searched
            in chunks, with at most `1 + effort // 10` random divisions into chunks (all patterns).
        seed: Seed of the random choices.
        name: Name of the tensor in error messages.

    Returns:
        The order, the solution of the permuted scores, and the gain.

    Raises:
        PatternError: If the pattern is not N:M; if permuting the axis cannot change anything; or if the channels of a
            convolution do not divide into whole groups.
        SolverError: If the time limit is NaN, or `effort` or `seed` is no integer of at least 0.
        ScoresError: As raised by `solve`; or if the scores are read by rows.
    """
    started, parsed = time.monotonic(), _nm_pattern(pattern)
    axes = _axes(parsed, axis)
    _check_options(time_limit_s, effort, seed)
    if is_row_source(scores):
        raise ScoresError("scores that are read by rows have no channels to permute; pass an array", name=name)
    before = solve(scores, parsed, name=name)
    _compile_kernels(parsed)
    limit = TimeLimit(time_limit_s)
    scores = read_tensor(scores, name)
    array = _as_array(scores)
    _check_convolution(array.shape, parsed, axes)
    orders, is_better = _best_orders(array, parsed, axes, _Settings(effort, seed), before.objective, limit)
    after = solve(_like(_take(array, orders), scores), parsed, name=name) if is_better else before
    return Permutation(
        orders["in"], orders["out"], after, before.objective, after.objective, _efficacy(array, before, after),
        time.monotonic() - started, limit.cut_short,
    )  # fmt: skip


def _check_options(time_limit_s: float | None, effort: int, seed: int) -> None:
    if time_limit_s is not None and not is_number(time_limit_s):
        raise SolverError(f"time_limit_s={time_limit_s!r} is not a number of seconds")
    for option, value in (("effort", effort), ("seed", seed)):
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
            raise SolverError(f"{option}={value!r} is not an integer of at least 0")


@dataclass(frozen=True)
class _Settings:
    """Arguments `effort` and `seed` of `permute`."""

    effort: int
    seed: int


def _best_orders(
    array: Doubles, pattern: NM, axes: tuple[Axis, ...], settings: _Settings, objective: float, limit: TimeLimit
) -> tuple[dict[str, Ints], bool]:
    """Search along one axis after the other until a round gains little or the time is up; a single axis only once.

    Returns the orders, and whether they keep more score than the original order, which keeps `objective`.
    """
    orders = {"out": np.arange(array.shape[0]), "in": np.arange(array.shape[1])}
    kept_score, steps = objective, None if len(axes) == 1 else STEPS
    while True:
        score_before_round = kept_score
        for axis in axes:
            order = _search(_take(array, orders), pattern, axis, settings, steps, limit)
            candidate = orders | {axis: orders[axis][order]}
            candidate_score = solve(_take(array, candidate), pattern).objective
            if candidate_score > kept_score:
                orders, kept_score = candidate, candidate_score
        if len(axes) == 1 or kept_score <= score_before_round * (1 + MIN_GAIN) or limit.passed():
            return orders, kept_score > objective


def _efficacy(array: Doubles, before: Solution, after: Solution) -> float:
    """Return the `efficacy` of `Permutation`."""
    # The numbers of entries in rows may change with the order, where tiles are not whole.
    unstructured = max(_kept_unstructured(array, before), _kept_unstructured(array, after))
    most, gain = unstructured - before.objective, after.objective - before.objective
    return min(1.0, gain / most) if most > 0 else 0.0  # above 1 by rounding errors alone


def _compile_kernels(pattern: NM) -> None:
    """Compile the kernels of the search for a plain pattern, by a search in two groups; `solve` compiled the others."""
    if not pattern.transposable:
        entries = np.arange(2 * pattern.m, dtype=np.float32)[None]
        column_swapping.search(entries, pattern.m, pattern.n, 1, 0, TimeLimit())


def _nm_pattern(pattern: NM | str) -> NM:
    parsed = read_pattern(pattern)
    if not isinstance(parsed, NM):
        raise PatternError(f"{parsed}: only N:M patterns support channel permutation")
    return parsed


def _axes(pattern: NM, axis: Axes) -> tuple[Axis, ...]:
    if axis not in ("in", "out", "both"):
        raise PatternError(f"axis={axis!r} is not one of: 'in', 'out', 'both'")
    if not pattern.transposable:
        if axis not in (pattern.axis, "both"):
            raise PatternError(
                f"{pattern} along {pattern.axis!r}: the order of the {axis!r} channels does not change what it keeps"
            )
        return (pattern.axis,)
    return ("in", "out") if axis == "both" else (axis,)


def _check_convolution(shape: tuple[int, ...], pattern: NM, axes: tuple[Axis, ...]) -> None:
    """Check that the channels of a convolution divide into whole groups, where that is necessary.

    A group of input channels could otherwise begin at one position of the kernel and end at the next one. A group of
    output channels lies within one position. But a search along the inputs for a transposable pattern works on a matrix
    whose rows are the output channels of one position after the other, so there a group could contain two positions.
    """
    if len(shape) == 2:
        return
    sides = []
    if pattern.transposable or pattern.axis == "in":
        sides.append((shape[1], "input", pattern.m))
    if pattern.transposable and "in" in axes:
        sides.append((shape[0], "output", pattern.m_out or pattern.m))
    for channels, noun, m in sides:
        if channels % m:
            raise PatternError(f"{pattern}: {channels} {noun} channels of a convolution are not a multiple of {m}")


def _search(array: Doubles, pattern: NM, axis: Axis, settings: _Settings, steps: int | None, limit: TimeLimit) -> Ints:
    """Search for an order of one axis, whose channels are the columns of a matrix.

    `steps` limits the search for transposable patterns.
    """
    view, effort, seed = _columns(array, axis), settings.effort, settings.seed
    if pattern.transposable:
        pattern_of_view = pattern if axis == "in" else _transposed(pattern)
        return dual_guided_swaps.search(view, pattern_of_view, 1 + effort // 10, steps, seed, limit)
    order = np.arange(view.shape[1])
    # Under `ragged="dense"`, the channels after the last whole group are kept in any case, and stay in their place.
    channels = view.shape[1] // pattern.m * pattern.m if pattern.ragged == "dense" else view.shape[1]
    if channels:
        # Swaps are compared in float32: dividing by the maximum, unless it is 0, prevents that a score overflows.
        scaled = np.ascontiguousarray(view[:, :channels] / (float(view.max()) or 1.0), np.float32)
        order[:channels] = column_swapping.search(scaled, pattern.m, pattern.n, effort, seed, limit)
    return order


def _columns(array: Doubles, axis: Axis) -> Doubles:
    """Return a matrix `[prod(kernel) * other channels, channels of the axis]`."""
    kernel = tuple(range(2, array.ndim))
    moved = array.transpose((*kernel, 0, 1) if axis == "in" else (*kernel, 1, 0))
    return np.ascontiguousarray(moved).reshape(-1, moved.shape[-1])


def _transposed(pattern: NM) -> NM:
    assert pattern.n_out is not None
    assert pattern.m_out is not None
    return replace(pattern, n=pattern.n_out, m=pattern.m_out, n_out=pattern.n, m_out=pattern.m)


def _kept_unstructured(array: Doubles, solution: Solution) -> float:
    """Return the score kept by an unstructured mask with as many entries in each row of `_columns` as the solution's.

    If rows keep unequal numbers, as at an edge, these may be exchanged: an order of both axes exchanges them, too.
    """
    view = _columns(array, solution.pattern.axis)
    keep = np.count_nonzero(_columns(_as_array(solution.mask), solution.pattern.axis), axis=1)
    if keep.min() == keep.max():
        count = int(keep[0])
        return float(np.partition(view, -count, axis=1)[:, -count:].sum()) if count else 0.0
    ranked = -np.sort(-view, axis=1)  # [rows, ranks], the largest score of each row first
    rows = [int(np.count_nonzero(keep > rank)) for rank in range(keep.max())]
    return float(sum(np.sort(ranked[:, rank])[-count:].sum() for rank, count in enumerate(rows)))


def _take(array: Doubles, orders: dict[str, Ints]) -> Doubles:
    return np.ascontiguousarray(array[orders["out"]][:, orders["in"]])


def _as_array(scores: Any) -> Doubles:
    array: Doubles = scores.cpu().double().numpy() if is_torch(scores) else scores.astype(np.float64)
    return array


def _like(array: Doubles, scores: Any) -> Any:
    if not is_torch(scores):
        return array.astype(scores.dtype)
    import torch

    return torch.from_numpy(array).to(device=scores.device, dtype=scores.dtype)
