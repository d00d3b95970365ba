"""The capacity of patterns at ragged edges is what the best mask of equal scores keeps."""

import numpy as np
import pytest

import masksmith as ms
from masksmith import measures
from masksmith.patterns import capacity

PATTERNS = [
    "8:2:8",
    "4:3:8",
    "block 4x4 50%",
    "block 4x4 50% balance rows",
    "block 4x4 50% balance cols",
    "block 4x4 50% nested 2:4",
    "channels in 50%",
    "channels out 50%",
    "30%",
]
SHAPES = [(8, 5), (5, 12), (6, 6), (9, 10), (8, 8), (13, 7)]


@pytest.mark.parametrize("ragged", ["pad", "dense"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_capacity_is_what_the_best_mask_of_ones_keeps(pattern, ragged):
    rule = ms.parse(pattern, ragged=ragged)
    for shape in SHAPES:
        try:
            solution = ms.solve(np.ones(shape, np.float32), rule)
        except ms.PatternError:  # nested blocks that do not divide the matrix
            continue
        assert capacity(rule, shape) == solution.kept
        assert ms.report(solution).fill == measures.fill(solution.mask, rule) == 1


@pytest.mark.parametrize("ragged", ["pad", "dense"])
def test_blocks_with_budgets_in_both_directions_keep_no_more(ragged):
    rule = ms.parse("block 4x4 50% balance both", ragged=ragged)
    for shape in SHAPES:
        assert ms.solve(np.random.default_rng(0).random(shape), rule).kept <= capacity(rule, shape)


@pytest.mark.parametrize("ragged", ["pad", "dense"])
def test_double_pruned_masks_have_the_capacity_of_the_pattern_that_allows_them(ragged):
    rule, allowed = ms.parse("double 2:4", ragged=ragged), ms.parse("transposable <=2:4", ragged=ragged)
    for shape in SHAPES:
        assert capacity(rule, shape) == capacity(allowed, shape)
        assert ms.report(ms.solve(np.random.default_rng(0).random(shape), rule)).fill <= 1


def test_stacked_matrices_are_measured_one_by_one():
    solution = ms.solve(np.ones((3, 5, 9), np.float32), "4:2:8", layout="stack out in")
    assert ms.report(solution).fill == 1
