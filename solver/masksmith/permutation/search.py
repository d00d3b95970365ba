"""`permute`: searches for channel orders, with the method and matrix layout that fit pattern and axis."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from masksmith._solve import solve
from masksmith._tensors import is_torch
from masksmith.patterns import NM, Axis, PatternError, parse

from . import column_swapping, dual_guided_swaps
from .permutation import Permutation
from .time_limit import TimeLimit

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Axes = Literal["in", "out", "both"]

MIN_GAIN = 1e-4
"""Relative gain of a round over both axes below which no other round follows."""

STEPS = 10
"""Steps along one axis before switching to the other."""


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
    by the tiles' duals and accepted by solving the tiles exactly, axis by axis until neither gains. Equal arguments
    give the same order on every machine, unless the time limit ends the search.

    Args:
        scores: Importance per weight, `[out, in, *kernel]`, finite and non-negative; numpy array or torch tensor.
        pattern: N:M, plain or transposable.
        axis: Channels to permute: inputs, outputs, or both. Plain patterns gain only along their own axis.
        time_limit_s: Seconds of search after which the best order so far is returned; the current step is finished, and
            the compilation of kernels on a new machine does not count.
        effort: Perturbations for plain patterns; wide layers are divided into chunks at most `1 + effort // 10` times.
        seed: Seed of the random choices.
        name: Name of the tensor in error messages.

    Returns:
        The order, the solution of the permuted scores, and the gain.

    Raises:
        PatternError: If it is no N:M pattern, permuting the axis cannot change anything, or a convolution's channels do
            not divide into whole groups.
        ScoresError: As `solve` raises it.
    """
    began, rule = time.monotonic(), _rule(pattern)
    axes = _axes(rule, axis)
    before = solve(scores, rule, name=name)
    _compile_kernels(rule)
    limit = TimeLimit(time_limit_s)
    array = _as_array(scores)
    _check_convolution(array.shape, rule)
    orders = {"out": np.arange(array.shape[0]), "in": np.arange(array.shape[1])}
    kept = before.objective
    while True:
        start = kept
        for each in axes:
            steps = None if len(axes) == 1 else STEPS
            order = _search(_take(array, orders), rule, each, (effort, steps, seed), limit)
            trial = orders | {each: orders[each][order]}
            objective = solve(_take(array, trial), rule).objective
            if objective > kept:
                orders, kept = trial, objective
        if len(axes) == 1 or kept <= start * (1 + MIN_GAIN) or limit.passed():
            break
    after = before if kept == before.objective else solve(_like(_take(array, orders), scores), rule, name=name)
    lost_unstructured = before.total_score - _kept_unstructured(array, rule)
    lost = before.total_score - before.objective
    gained = after.objective - before.objective
    efficacy = gained / (lost - lost_unstructured) if lost > lost_unstructured else 0.0
    return Permutation(
        orders["in"], orders["out"], after, before.objective, after.objective, efficacy,
        time.monotonic() - began, limit.cut_short,
    )  # fmt: skip


def _compile_kernels(rule: NM) -> None:
    """Have the kernels of a plain pattern's search compiled, by a search in two groups; `solve` compiles all others."""
    if not rule.transposable:
        entries = np.arange(2 * rule.m, dtype=np.float32)[None]
        column_swapping.search(entries, rule.m, rule.n, 1, 0, TimeLimit())


def _rule(pattern: NM | str) -> NM:
    rule = parse(pattern) if isinstance(pattern, str) else pattern
    if not isinstance(rule, NM):
        raise PatternError(f"{rule}: channels are permuted for N:M patterns alone")
    return rule


def _axes(rule: NM, axis: Axes) -> tuple[Axis, ...]:
    if axis not in ("in", "out", "both"):
        raise PatternError(f"axis={axis!r} is not one of: 'in', 'out', 'both'")
    if not rule.transposable:
        if axis not in (rule.axis, "both"):
            raise PatternError(f"{rule} along {rule.axis!r}: no order of the {axis!r} channels changes what it keeps")
        return (rule.axis,)
    return ("in", "out") if axis == "both" else (axis,)


def _check_convolution(shape: tuple[int, ...], rule: NM) -> None:
    """Check that channels divide into whole groups, so that permuting them does not mix positions of the kernel."""
    if len(shape) == 2:
        return
    sides = {"in": (shape[1], rule.m), "out": (shape[0], rule.m_out or rule.m)}
    for each, (channels, m) in sides.items():
        if channels % m and (rule.transposable or each == rule.axis):
            raise PatternError(f"{rule}: {channels} {each}put channels of a convolution are not a multiple of {m}")


def _search(array: Doubles, rule: NM, axis: Axis, limits: tuple[int, int | None, int], limit: TimeLimit) -> Ints:
    """Search with the channels as columns of a matrix, `[prod(kernel) * other channels, channels]`."""
    (effort, steps, seed), view = limits, _columns(array, axis)
    if rule.transposable:
        transposed = rule if axis == "in" else _transposed(rule)
        return dual_guided_swaps.search(view, transposed, 1 + effort // 10, steps, seed, limit)
    order = np.arange(view.shape[1])
    whole = view.shape[1] // rule.m * rule.m if rule.ragged == "dense" else view.shape[1]
    if whole:
        # One scale for all entries: swaps are compared in float32.
        scaled = np.ascontiguousarray(view[:, :whole] / max(float(view.max()), 1e-300), np.float32)
        order[:whole] = column_swapping.search(scaled, rule.m, rule.n, effort, seed, limit)
    return order


def _columns(array: Doubles, axis: Axis) -> Doubles:
    kernel = tuple(range(2, array.ndim))
    moved = array.transpose((*kernel, 0, 1) if axis == "in" else (*kernel, 1, 0))
    return np.ascontiguousarray(moved).reshape(-1, moved.shape[-1])


def _transposed(rule: NM) -> NM:
    assert rule.n_out is not None
    assert rule.m_out is not None
    return replace(rule, n=rule.n_out, m=rule.m_out, n_out=rule.n, m_out=rule.m)


def _kept_unstructured(array: Doubles, rule: NM) -> float:
    """Return the score kept if every row keeps its largest entries at the pattern's density, without groups."""
    view = _columns(array, rule.axis)
    keep = math.ceil(round(view.shape[1] * rule.density, 6))
    return float(np.partition(view, -keep, axis=1)[:, -keep:].sum())


def _take(array: Doubles, orders: dict[str, Ints]) -> Doubles:
    return np.ascontiguousarray(array[orders["out"]][:, orders["in"]])


def _as_array(scores: Any) -> Doubles:
    array: Doubles = scores.detach().cpu().double().numpy() if is_torch(scores) else np.asarray(scores, np.float64)
    return array


def _like(array: Doubles, scores: Any) -> Any:
    if not is_torch(scores):
        return array.astype(scores.dtype)
    import torch

    return torch.from_numpy(array).to(device=scores.device, dtype=scores.dtype)
