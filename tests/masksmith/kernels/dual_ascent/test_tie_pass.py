"""The tie pass: noise, and exact proofs of what it solves or prepares for the shortest-path stage."""

from __future__ import annotations

import numpy as np
import pytest
from support.naive_tiles import awkward
from support.oracles import _exact_sign, check_best, unproved_tiles

from masksmith._panels import Panel, PanelAnswer, to_tiles
from masksmith.kernels.dual_ascent.integer_pass import compile_integer_pass
from masksmith.kernels.dual_ascent.tie_pass import compile_tie_pass, tie_noise
from masksmith.kernels.tile import Budget
from masksmith.patterns import TileSpec
from masksmith.solvers._duals.ascent_schedule import tie_passes
from masksmith.solvers.exact import kernel_budget

SIZE, KEEP, COUNT = 8, 4, 20
KINDS = ("ties", "binary", "zeros", "constant", "one-hot", "additive", "gauss", "tiny", "wide")


@pytest.mark.parametrize(("rows", "cols", "row_size"), [(8, 8, 8), (5, 6, 8), (16, 16, 16), (64, 64, 64)])
@pytest.mark.parametrize("bits", [4, 16, 20])
def test_noise_is_even_bounded_and_depends_on_the_position_only(rows, cols, row_size, bits):
    noise = tie_noise(Budget(rows, cols, 2, 2, False, cols), row_size, bits).reshape(rows, row_size)
    assert noise.dtype == np.int32
    assert (noise % 2 == 0).all()
    assert noise.min() >= 0
    assert noise.max() < 1 << bits
    assert not noise[:, cols:].any()
    for i, j in ((0, 0), (rows - 1, cols - 1), (2, 3)):
        mixed = (i * 64 + j + 1) * 2654435761 % (1 << 32)
        for _ in range(3):
            mixed = (mixed ^ mixed >> 15) * 2246822519 % (1 << 32)
        assert noise[i, j] == ((mixed ^ mixed >> 13) >> (32 - bits)) // 2 * 2
    # Noise of 20 bits decides between nearly all pairs of equal entries.
    assert bits < 20 or len(np.unique(noise[:, :cols])) > 0.98 * rows * cols


def run(scores, spec, parameters):
    """Run one pass for the tiles that the integer pass leaves.

    Returns the panel, the answer, the tiles left before and after the pass, and which are marked ready.
    """
    panel, budget = Panel(scores, spec), kernel_budget(spec)
    sweeps, lowerings, zoom, noise_bits, non_negative = parameters
    mask, u, v = np.zeros(scores.shape, np.bool_), np.zeros((COUNT, SIZE)), np.zeros((COUNT, SIZE))
    order, ready, noise = np.arange(COUNT), np.zeros(COUNT, np.uint8), tie_noise(budget, SIZE, noise_bits)
    integer_pass = compile_integer_pass(SIZE, SIZE, True, True, SIZE, SIZE)
    before = integer_pass(scores, budget, np.array([4, 10]), False, False, order, COUNT, mask, u, v)
    tiles = order[:before].tolist()
    tie_pass = compile_tie_pass(SIZE, SIZE, True, True, SIZE)
    parameters = (sweeps, lowerings, zoom, noise, non_negative)
    unsolved = tie_pass(scores, budget, *parameters, order, before, mask, u, v, ready)
    answer = PanelAnswer(mask, u.reshape(4, 5, SIZE), v.reshape(4, 5, SIZE))
    return panel, answer, tiles, order[:unsolved].tolist(), ready


def part(panel, answer, index):
    """One tile of a panel with its answer."""
    duals = (d.reshape(COUNT, 1, 1, SIZE)[index] for d in (answer.row_duals, answer.col_duals))
    return Panel(to_tiles(panel.scores, panel.tile)[index], panel.tile), PanelAnswer(
        to_tiles(answer.mask, panel.tile)[index], *duals
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at_most", [False, True])
@pytest.mark.parametrize("number", [0, 1])
def test_solved_tiles_are_proved_and_ready_ones_are_proved_for_their_own_counts(kind, at_most, number):
    spec = TileSpec(SIZE, SIZE, KEEP, KEEP, at_most)
    parameters = tie_passes(SIZE, at_most=at_most)[number]
    panel, answer, tiles, unsolved, ready = run(awkward(kind, (4 * SIZE, 5 * SIZE), 6), spec, parameters)
    assert unsolved == sorted(set(unsolved))
    assert not ready[unsolved].any()
    for index in sorted(set(tiles) - set(unsolved)):
        one, alone = part(panel, answer, index)
        if not ready[index]:
            assert unproved_tiles(one, alone) == 0
            check_best(one, alone)
            continue
        u, v = alone.row_duals[0, 0][:, None], alone.col_duals[0, 0][None]
        assert (_exact_sign(one.scores.astype(np.float64), u, v) * np.where(alone.mask, 1, -1) >= 0).all()
        rows, cols = alone.mask.sum(1), alone.mask.sum(0)
        assert (rows <= KEEP).all()
        assert (rows[u[:, 0] > 0] == KEEP).all() if at_most else (rows == KEEP).all()
        assert (cols != KEEP).any()
    assert len(unsolved) < len(tiles) or kind not in ("ties", "binary", "constant", "zeros", "one-hot")


def test_unsolved_tiles_keep_their_duals():
    spec, scores = TileSpec(SIZE, SIZE, KEEP, KEEP), awkward("wide", (SIZE, SIZE), 6)
    u, v = np.arange(8.0).reshape(1, SIZE), np.arange(8.0, 16.0).reshape(1, SIZE)
    before, budget, order = (u.copy(), v.copy()), kernel_budget(spec), np.zeros(1, np.int64)
    tie_pass, mask = compile_tie_pass(SIZE, SIZE, True, True, SIZE), np.zeros((SIZE, SIZE), np.bool_)
    ready = np.zeros(1, np.uint8)
    # Without a round of lowering no tile is proved.
    arguments = (1, 0, 0, tie_noise(budget, SIZE, 4), False, order, 1, mask, u, v, ready)
    assert tie_pass(scores, budget, *arguments) == 1
    assert np.array_equal(u, before[0])
    assert np.array_equal(v, before[1])
    assert not ready.any()
