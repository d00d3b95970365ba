"""Efficacy where groups and tiles are not whole at the edges."""

import numpy as np
import pytest

import masksmith as ms

SHAPES = [(9, 4), (8, 7), (5, 5), (7, 9), (6, 10)]


@pytest.mark.parametrize("ragged", ["pad", "dense"])
@pytest.mark.parametrize("pattern", ["2:4", "1:4", "transposable 2:4", "transposable <=1:2"])
@pytest.mark.parametrize("shape", SHAPES)
def test_efficacy_is_a_share_at_ragged_edges(shape, pattern, ragged):
    for seed in range(3):
        scores = np.random.default_rng(seed).random(shape)
        parsed = ms.parse(pattern, ragged=ragged)
        for axis in ("in", "both"):
            found = ms.permute(scores, parsed, axis, effort=10)
            assert 0 <= found.efficacy <= 1
            assert (found.efficacy > 0) == (found.gain > 0)


def test_scores_of_every_magnitude_give_a_share():
    for seed in range(40):
        scores = 10.0 ** np.random.default_rng(seed).integers(-200, 200, (9, 8))
        assert 0 <= ms.permute(scores, ms.parse("1:2", axis="out", ragged="dense"), "both", effort=10).efficacy <= 1


def test_rows_are_compared_with_as_many_entries():
    scores = np.random.default_rng(0).random((8, 7))
    found = ms.permute(scores, "1:4")
    keep = found.solution.kept // 8  # one of the first four columns and one of the other three, not 7 * 1/4
    free = np.sort(scores, axis=1)[:, -keep:].sum()
    assert found.efficacy == pytest.approx((found.kept_after - found.kept_before) / (free - found.kept_before))
