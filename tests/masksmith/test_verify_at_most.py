"""Verification of what may keep less than its pattern: any part of an allowed mask passes, and one entry more fails."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import masksmith as ms

PATTERNS = [
    "2:4", "1:4", "transposable 2:4", "transposable 4:8 x 2:4", "50%", "10%", "channels 50%", "channels in 50%",
    "block 4x4 50%", "block 2x4 50% balance both", "block 4x4 50% nested 2:4", "8:2:8", "4:1:6",
    "hybrid 4x4 2:4 50%", "hybrid 8x8 transposable 2:4 25%",
]  # fmt: skip


def solved(pattern, shape, seed=0):
    return ms.solve(np.random.default_rng(seed).random(shape), pattern).mask


@given(st.sampled_from(PATTERNS), st.sampled_from([(16, 24), (24, 16), (8, 8, 3)]), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_every_part_of_an_allowed_mask_passes(pattern, shape, seed):
    mask = solved(pattern, shape, seed)
    part = mask & (np.random.default_rng(seed).random(shape) < 0.8)
    assert ms.verify(part, pattern, at_most=True)
    assert ms.verify(np.zeros(shape, bool), pattern, at_most=True)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_dense_tensor_fails_and_the_first_offence_is_named(pattern):
    verdict = ms.verify(np.ones((16, 24), bool), pattern, at_most=True)
    assert not verdict
    assert verdict.tile is not None
    assert verdict.broken >= 1


@pytest.mark.parametrize(
    "pattern", ["2:4", "transposable 2:4", "50%", "block 4x4 50% nested 2:4", "8:2:8", "hybrid 4x4 2:4 50%"]
)
def test_one_entry_more_than_a_full_mask_fails(pattern):
    mask = solved(pattern, (16, 24))
    row, col = (int(places[0]) for places in np.nonzero(~mask))
    if "block" in pattern:
        kept_row, kept_col = (int(places[0]) for places in np.nonzero(mask))
        block = np.s_[kept_row // 4 * 4 :, kept_col // 4 * 4 :]
        row, col = next((r, c) for r, c in np.argwhere(~mask) if r // 4 == kept_row // 4 and c // 4 == kept_col // 4)
        assert mask[block].any()
    mask[row, col] = True
    assert not ms.verify(mask, pattern, at_most=True)


@pytest.mark.parametrize("ragged", ["pad", "dense"])
@pytest.mark.parametrize("pattern", ["2:4", "transposable 2:4", "8:2:8"])
def test_ragged_edges(pattern, ragged):
    pattern = ms.parse(pattern, ragged=ragged)
    mask = solved(pattern, (19, 22))
    part = mask & (np.random.default_rng(1).random(mask.shape) < 0.5)
    assert ms.verify(part, pattern, at_most=True)
    full_edge = np.zeros((19, 22), bool)
    full_edge[-3:] = True
    is_edge_dense = ragged == "dense" and pattern.grid((19, 22)).tile_rows > 1
    assert bool(ms.verify(full_edge, pattern, at_most=True)) == is_edge_dense


def test_each_matrix_of_a_stack_is_counted():
    weight = np.zeros((2, 8, 8))
    weight[1, 3, :3] = 1.0
    verdict = ms.verify(weight != 0, "2:4", layout="stack out in", at_most=True)
    assert (verdict.ok, verdict.matrix, verdict.tile) == (False, 1, (3, 0))
