"""Blocks, channels and hybrids against rational arithmetic, where float64 sums are equal or in the wrong order."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import masksmith as ms
from masksmith.whole_tensor import passes
from masksmith.whole_tensor.unit_values import ExactSum, UnitValues, smallest_bit
from masksmith.whole_tensor.violations import order_violation

FLOAT32 = st.sampled_from([0.0, 1.0, 3.0, 2.0**-30, 2.0**30, 2.0**53, 2.0**53 + 2.0**31, 2.0**100, 2.0**-100])
FLOAT64 = st.sampled_from([0.0, 1.0, 1.0 + 2.0**-52, 0.1, 0.3, 2.0**53, 1e300, 1e-300, 5e-324, 2.0**-1022])


def fractions(values: np.ndarray) -> list[Fraction]:
    return [Fraction(float(value)) for value in values.ravel()]


def first_largest(values: list[Fraction], keep: int) -> list[bool]:
    kept = sorted(range(len(values)), key=lambda index: (-values[index], index))[:keep]
    return [index in kept for index in range(len(values))]


def exact_norm(block: np.ndarray, norm: str) -> Fraction:
    """The norm, for l2 its square, which has the same order."""
    numbers = fractions(block)
    if norm == "max":
        return max(numbers)
    if norm == "l2":
        return sum((number**2 for number in numbers), Fraction(0))
    return sum(numbers, Fraction(0)) / (len(numbers) if norm == "mean" else 1)


def scores_of(draw: st.DataObject, shape: tuple[int, int]) -> np.ndarray:
    dtype, values = draw.draw(st.sampled_from([(np.float32, FLOAT32), (np.float64, FLOAT64)]))
    count = shape[0] * shape[1]
    return np.array(draw.draw(st.lists(values, min_size=count, max_size=count)), dtype).reshape(shape)


@settings(deadline=None)
@given(st.data(), st.sampled_from(["l1", "l2", "mean", "max"]), st.sampled_from(["none", "rows", "cols"]))
def test_blocks_are_those_of_rational_arithmetic(data: st.DataObject, norm: str, balance: str) -> None:
    scores = scores_of(data, (4, 7))
    solution = ms.solve(scores, ms.Block(2, 2, 0.5, balance, norm))
    values = np.array(
        [[exact_norm(scores[i : i + 2, j : j + 2], norm) for j in range(0, 7, 2)] for i in range(0, 4, 2)]
    )
    kept = np.array(solution.mask[::2, ::2])
    expected = {
        "none": lambda: np.array(first_largest(list(values.ravel()), 4)).reshape(2, 4),
        "rows": lambda: np.array([first_largest(list(row), 2) for row in values]),
        "cols": lambda: np.array([first_largest(list(column), 1) for column in values.T]).T,
    }[balance]()
    assert (kept == expected).all()
    assert (solution.status, solution.gap) == ("optimal", 0.0)


@settings(deadline=None)
@given(st.data(), st.sampled_from(["in", "out"]))
def test_channels_are_those_of_rational_arithmetic(data: st.DataObject, axis: str) -> None:
    scores = scores_of(data, (5, 6))
    solution = ms.solve(scores, ms.Channels(0.5, axis))
    channels = scores if axis == "out" else scores.T
    sums = [sum(fractions(channel), Fraction(0)) for channel in channels]
    kept = solution.mask[:, 0] if axis == "out" else solution.mask[0]
    assert list(kept) == first_largest(sums, 3)
    assert (solution.status, solution.gap) == ("optimal", 0.0)


@settings(deadline=None)
@given(st.data())
def test_dense_blocks_are_those_of_rational_arithmetic(data: st.DataObject) -> None:
    scores = scores_of(data, (4, 8))
    solution = ms.solve(scores, "hybrid 2x4 1:2 50%")
    gains = []
    for i, j in [(0, 0), (0, 4), (2, 0), (2, 4)]:
        pairs = scores[i : i + 2, j : j + 4].reshape(-1, 2)
        gains.append(sum(fractions(pairs.min(axis=1)), Fraction(0)))
    dense = solution.mask.reshape(2, 2, 2, 4).all(axis=(1, 3)).ravel()
    assert list(dense) == first_largest(gains, 2)
    assert (solution.status, solution.gap) == ("optimal", 0.0)


@pytest.mark.parametrize("axis", ["in", "out"])
def test_channels_of_several_panels_are_summed_exactly(axis: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Channel 1 is larger by the least that float64 sums of 2^53 lose."""
    monkeypatch.setattr(passes, "PANEL_ENTRIES", 6)
    channels = np.zeros((3, 20))
    channels[0, 0] = channels[1, 0] = channels[2, 0] = 2.0**53
    channels[1, 19] = 1.0
    steps: list[tuple[int, int]] = []
    scores = channels if axis == "out" else channels.T
    solution = ms.solve(scores, ms.Channels(0.3, axis), on_progress=lambda *step: steps.append(step))
    assert solution.mask.any(axis=1 if axis == "out" else 0).tolist() == [False, True, False]
    assert solution.status == "optimal"
    assert all(done <= total for done, total in steps)


def test_convolutions_and_nested_masks_are_summed_exactly() -> None:
    kernel = np.zeros((4, 2, 1, 3))
    kernel[:, :, 0, 0], kernel[2, 1, 0, 2] = 2.0**53, 1.0
    assert ms.solve(kernel, ms.Channels(0.25, "out")).mask.any(axis=(1, 2, 3)).tolist() == [False, False, True, False]
    assert ms.solve(kernel, ms.Channels(0.5, "in")).mask.any(axis=(0, 2, 3)).tolist() == [False, True]
    scores = np.zeros((2, 8))
    scores[:, 0], scores[:, 4] = 2.0**53, 2.0**53
    scores[1, 5], scores[0, 1] = 1.0, 0.5
    nested = ms.solve(scores, "block 2x4 50% nested 2:4")
    assert nested.mask.reshape(2, 2, 4).any(axis=(0, 2)).tolist() == [False, True]
    assert nested.status == "optimal"


@pytest.mark.parametrize("pattern", ["block 2x2 25%", "channels in 25%", "channels out 25%", "hybrid 2x2 1:2 25%"])
def test_sums_near_the_largest_number_do_not_overflow(pattern: str) -> None:
    scores = np.zeros((4, 4))
    scores[0, 0], scores[3, 3] = 0.99 * np.finfo(np.float64).max, 2.0**900
    solution = ms.solve(scores, pattern)
    assert solution.mask[0, 0]
    assert (solution.status, solution.gap) == ("optimal", 0.0)


@given(st.lists(FLOAT64, min_size=2, max_size=8), st.data())
def test_the_violation_is_zero_only_for_the_best_and_else_an_upper_bound(
    numbers: list[float], data: st.DataObject
) -> None:
    values = UnitValues(np.array(numbers), 4, lambda units: [Fraction(numbers[unit]) for unit in units.tolist()])
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(numbers), max_size=len(numbers))))
    violation = order_violation(values, np.arange(len(numbers)), mask)
    kept = sum((Fraction(numbers[int(unit)]) for unit in np.flatnonzero(mask)), Fraction(0))
    best = sum(sorted(map(Fraction, numbers), reverse=True)[: int(mask.sum())], Fraction(0))
    assert (violation == 0.0) == (kept == best)
    assert Fraction(violation) >= best - kept


@given(st.lists(FLOAT64, max_size=30))
def test_exact_sums(numbers: list[float]) -> None:
    total = ExactSum()
    for start in range(0, len(numbers), 3):
        total.add(np.array(numbers[start : start + 3]))
    assert total.total() == sum(map(Fraction, numbers), Fraction(0))


def test_sums_of_whole_multiples_are_not_summed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExactSum, "add", None)
    for scores in (np.ones((32, 32)), np.full((32, 32), 0.375, np.float32), np.zeros((32, 32))):
        for pattern in ("block 4x4 50%", "channels in 50%", "hybrid 4x4 2:4 50%"):
            solution = ms.solve(scores, pattern)
            assert solution.status == "optimal"
            assert solution.mask[0, 0]  # ties go to the first


@given(st.lists(FLOAT64, max_size=9))
def test_the_smallest_bit_divides_all_scores_and_no_larger_power_does(numbers: list[float]) -> None:
    bit = smallest_bit([np.array(numbers[:4]), np.array(numbers[4:])])
    if not any(numbers):
        assert bit == math.inf
        return
    multiples = [Fraction(number) / Fraction(bit) for number in numbers]
    assert all(multiple.denominator == 1 for multiple in multiples)
    assert any(multiple.numerator % 2 for multiple in multiples)


def test_scores_are_read_again_only_where_rounding_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("exact sums are computed")

    monkeypatch.setattr(ExactSum, "add", refuse)
    scores = np.random.default_rng(0).random((64, 64), np.float32)
    for pattern in ["block 8x8 50%", "block 8x8 50% balance rows", "channels in 50%", "hybrid 8x8 2:4 50%"]:
        assert ms.solve(scores, pattern).status == "optimal"
    scores[:, 8:] = 0.0  # equal blocks of zeros are exact
    assert ms.solve(scores, "block 8x8 50%").status == "optimal"
