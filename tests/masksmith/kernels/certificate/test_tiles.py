"""Certificates of tiles, and their vectorised first pass, against fractions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from masksmith.kernels.certificate.tiles import certify
from masksmith.kernels.certificate.tiles_simd import WIDTH, compile_first_pass, slot_width

NO_FORCED = np.zeros((0, 0), np.int8)
SCORES = st.sampled_from([0.0, -0.0, 5e-324, 1e-300, 1.0, 1.0, 1.0 + 2.0**-52, 3.0, 1e300])
DUALS = st.sampled_from([0.0, -0.0, 5e-324, 1.0, 1.0 - 2.0**-53, -1e-300, -(2.0**-60), 1e300])


def tile_part(tile, size, across):
    top, left = tile // across * size, tile % across * size
    return slice(top, top + size), slice(left, left + size)


def exact_violation(scores, mask, forced, u, v, keep, at_most):
    """Violation of one tile as a fraction, straight from its definition."""
    u, v = ([Fraction(x) for x in duals.tolist()] for duals in (u, v))
    if at_most:
        u, v = ([max(x, Fraction(0)) for x in duals] for duals in (u, v))
    total = Fraction(0)
    for i, j in np.ndindex(scores.shape):
        rest = Fraction(float(scores[i, j])) - u[i] - v[j]
        total += max(Fraction(0), -rest if mask[i, j] else rest) if forced[i, j] == 0 else 0
    for duals, counts in ((u, mask.sum(1)), (v, mask.sum(0))):
        total += sum(x * max(0, keep - int(count)) for x, count in zip(duals, counts, strict=True))
    return total


def is_legal(mask, keep, at_most):
    counts = np.concatenate([mask.sum(0), mask.sum(1)])
    return bool((counts <= keep).all() if at_most else (counts == keep).all())


def check_slow_pass(scores, mask, forced, u, v, keep, at_most):
    shape, size = u.shape[:2], u.shape[2]
    objective, violation, legal = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, np.bool_)
    tiles = np.arange(objective.size)
    certify(scores, mask, forced, u, v, keep, keep, at_most, tiles, objective, violation, legal)
    codes = forced if forced.size else np.zeros(scores.shape, np.int8)
    for tile in tiles:
        part, at = tile_part(tile, size, shape[1]), divmod(tile, shape[1])
        allowed = is_legal(mask[part], keep, at_most)
        exact = exact_violation(scores[part], mask[part], codes[part], u[at], v[at], keep, at_most)
        score = sum((Fraction(w) for w in scores[part][mask[part]].tolist()), Fraction(0))
        assert legal[at] == allowed
        assert abs(Fraction(float(objective[at])) - score) <= size * Fraction(2) ** -52 * score
        if allowed:
            largest = Fraction(float(violation[at]))
            assert (largest == 0) == (exact == 0)
            assert exact <= largest


def rotated(down, across, size, keep):
    """A mask that fills every budget."""
    i, j = np.indices((down * size, across * size))
    return (i - j) % size < keep


@pytest.mark.parametrize("at_most", [False, True])
@pytest.mark.parametrize("with_forced", [False, True])
@pytest.mark.parametrize("size", [1, 4, 5, 8])
def test_random_masks_and_duals(size, with_forced, at_most):
    rng, keep = np.random.default_rng(size), (size + 1) // 2
    for broken in (0.0, 0.03):
        scores = rng.integers(0, 5, (2 * size, 3 * size)).astype(np.float32)
        mask = rotated(2, 3, size, keep) ^ (rng.random(scores.shape) < broken)
        forced = rng.choice(np.array([0, 0, 1, -1], np.int8), scores.shape) if with_forced else NO_FORCED
        u, v = (rng.integers(-1, 4, (2, 3, size)).astype(float) for _ in range(2))
        check_slow_pass(scores, mask, forced, u, v, keep, at_most)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(SCORES, min_size=16, max_size=16),
    st.lists(DUALS, min_size=8, max_size=8),
    st.integers(1, 4),
    st.booleans(),
)
def test_signs_are_exact_over_the_whole_range(scores, duals, keep, at_most):
    u, v = np.array(duals).reshape(2, 1, 1, 4)
    check_slow_pass(np.array(scores).reshape(4, 4), rotated(1, 1, 4, keep), NO_FORCED, u, v, keep, at_most)


@pytest.mark.parametrize("cols", [1, 3, 4, 5, 8, 16, 17, 33, 64])
def test_a_slot_is_the_next_size_that_holds_a_tile(cols):
    assert slot_width(cols) == next(slot for slot in (4, 8, 16, 32, 64) if slot >= max(cols, 4 if cols == 4 else 5))


@pytest.mark.parametrize("at_most", [False, True])
@pytest.mark.parametrize(("size", "across"), [(8, 8), (8, 11), (8, 3), (5, 9)])
def test_the_first_pass_lists_every_tile_that_is_not_proved(size, across, at_most):
    rng, keep = np.random.default_rng(across), (size + 1) // 2
    slot, per = slot_width(size), WIDTH // slot_width(size)
    check = compile_first_pass(slot, slot == size and size * across >= WIDTH)
    for broken in (0.0, 0.002, 0.02):
        mask = rotated(2, across, size, keep)
        # Kept scores lie at or above the sums of duals, dropped ones at or below; some are then moved across.
        u, v = (rng.integers(-1, 4, (2, across, size)).astype(float) for _ in range(2))
        sums = np.concatenate([np.hstack([np.add.outer(u[i, t], v[i, t]) for t in range(across)]) for i in range(2)])
        wrong = rng.random(mask.shape) < broken
        scores = np.where(mask ^ wrong, sums + rng.integers(0, 2, mask.shape), sums - rng.integers(0, 2, mask.shape))
        scores, mask = scores.astype(np.float32), mask ^ (rng.random(mask.shape) < broken)
        objective, listed = np.full((2, across), np.nan), np.full(2 * across, -1)
        floor = 0.0 if at_most else -np.inf
        count = check(scores, mask, u, v, keep, keep, floor, objective, listed)
        assert sorted(set(listed[:count].tolist())) == listed[:count].tolist()
        unproved = []
        for tile in range(2 * across):
            part, at = tile_part(tile, size, across), divmod(tile, across)
            free = np.zeros((size, size), np.int8)
            exact = exact_violation(scores[part], mask[part], free, u[at], v[at], keep, at_most)
            assert objective[at] == scores[part][mask[part]].sum(dtype=np.float64)
            unproved += [tile] if exact > 0 or not is_legal(mask[part], keep, False) else []
        assert set(unproved) <= set(listed[:count].tolist())
        # A violation lists all tiles that are checked together with it.
        assert all(min(abs(tile - other) for other in unproved) < per for tile in listed[:count])
