"""Hybrid patterns: masks, bounds and verdicts against enumeration of dense blocks, inner masks and whole masks."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import masksmith as ms
from masksmith.whole_tensor import passes
from masksmith.whole_tensor.hybrid import _violation
from masksmith.whole_tensor.unit_values import UnitValues
from masksmith.whole_tensor.units import best_of_all

RNG = np.random.default_rng(17)
Array = np.ndarray[Any, Any]
# Height, width, entries kept of each row and of each column (None: any number) of a tile.
TILES = {"2:4": (1, 4, 2, None), "1:4": (1, 4, 1, None), "transposable 1:2": (2, 2, 1, 1),
         "transposable 2:4": (4, 4, 2, 2), "transposable 2:4 x 1:2": (2, 4, 2, 1)}  # fmt: skip
KINDS = {
    "gauss": lambda scores: scores,
    "ties": np.round,
    "zeros": lambda scores: scores * (scores > 1.5),
    "zero": lambda scores: 0 * scores,
    "wide": lambda scores: 10.0 ** (30 * (scores - 1)),
}


@cache
def tile_masks(inner: str) -> list[Array]:
    """Every allowed mask of a tile."""
    height, width, by_row, by_col = TILES[inner]
    rows = [[col in kept for col in range(width)] for kept in combinations(range(width), by_row)]
    masks = [np.array(chosen) for chosen in product(rows, repeat=height)]
    return [mask for mask in masks if by_col is None or (mask.sum(0) == by_col).all()]


def exactly(scores: Array) -> Fraction:
    return sum((Fraction(float(score)) for score in scores.flat), Fraction(0))


def best_inside(block: Array, inner: str) -> Fraction:
    """The most that the inner pattern keeps of a block, by trying every mask of each tile; a cut tile is padded."""
    height, width, *_ = TILES[inner]
    total = Fraction(0)
    for top, left in product(range(0, len(block), height), range(0, block.shape[1], width)):
        tile = block[top : top + height, left : left + width]
        total += max(exactly(tile[mask[: tile.shape[0], : tile.shape[1]]]) for mask in tile_masks(inner))
    return total


def best(scores: Array, sides: tuple[int, int], inner: str, share: float, ragged: str) -> Fraction:
    """The optimum, by trying every choice of dense blocks."""
    rows, cols = scores.shape
    if ragged == "dense":
        rows, cols = rows // sides[0] * sides[0], cols // sides[1] * sides[1]
    places = product(range(0, rows, sides[0]), range(0, cols, sides[1]))
    blocks = [scores[top : min(top + sides[0], rows), left : min(left + sides[1], cols)] for top, left in places]
    edge = exactly(scores) - exactly(scores[:rows, :cols])
    dense, inside = [exactly(block) for block in blocks], [best_inside(block, inner) for block in blocks]
    keep = int(share * len(blocks) + 0.5)
    choices = (set(chosen) for chosen in combinations(range(len(blocks)), keep))
    return edge + max(sum(dense[b] if b in chosen else inside[b] for b in range(len(blocks))) for chosen in choices)


@pytest.mark.parametrize("inner", list(TILES))
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("ragged", ["pad", "dense"])
def test_the_optimum_is_that_of_enumeration(inner: str, kind: str, ragged: Any) -> None:
    for shape, share in (((8, 16), 0.3), ((9, 13), 0.5), ((6, 17), 0.75)):
        scores = KINDS[kind](np.abs(RNG.standard_normal(shape)))
        pattern = ms.Hybrid(4, 4, ms.parse(inner), share, ragged)  # type: ignore[arg-type]
        solution = ms.solve(scores, pattern)
        optimum = best(scores, (4, 4), inner, share, ragged)
        assert solution.objective == pytest.approx(float(optimum), rel=1e-12)
        assert solution.upper_bound * (1 + 1e-15) >= float(optimum)
        assert float(exactly(scores[solution.mask])) == pytest.approx(solution.objective, rel=1e-15)
        assert (solution.status, solution.gap) == ("optimal", 0.0) or kind == "wide"
        assert ms.verify(solution.mask, pattern)
        assert solution.kept == solution.mask.sum()


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 18)),
    sides=st.sampled_from([(2, 4), (4, 4), (4, 8), (6, 4)]),
    inner=st.sampled_from(["2:4", "1:4", "transposable 1:2", "transposable 2:4 x 1:2"]),
    share=st.sampled_from([0.1, 0.25, 0.5, 0.8, 1.0]),
    ragged=st.sampled_from(["pad", "dense"]),
    largest=st.sampled_from([1, 2, 5, 100]),
    seed=st.integers(0, 2**32 - 1),
)
def test_whole_numbers_reach_the_optimum_exactly(
    shape: tuple[int, int], sides: tuple[int, int], inner: str, share: float, ragged: Any, largest: int, seed: int
) -> None:
    scores = np.random.default_rng(seed).integers(0, largest + 1, shape).astype(np.float32)
    pattern = ms.Hybrid(*sides, ms.parse(inner), share, ragged)  # type: ignore[arg-type]
    try:
        pattern.grid(shape)
    except ms.PatternError:
        return
    solution = ms.solve(scores, pattern)
    assert solution.objective == solution.upper_bound == best(scores, sides, inner, share, ragged)
    assert ms.verify(solution.mask, pattern)


def test_ties_go_to_the_first_blocks() -> None:
    mask = ms.solve(np.ones((8, 8), np.float32), "hybrid 4x4 2:4 50%").mask
    assert mask[:4].all()
    assert (mask[4:].sum(1) == 4).all()


def test_the_share_is_that_of_the_dense_blocks() -> None:
    pattern = ms.parse("hybrid 4x4 1:4 75%")
    solution = ms.solve(RNG.random((16, 16)), pattern)
    blocks = solution.mask.reshape(4, 4, 4, 4).swapaxes(1, 2).reshape(16, 16)
    assert blocks.all(axis=1).sum() == 12
    assert solution.density == pattern.density == 0.75 + 0.25 * 0.25


def test_many_panels_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, pattern = np.abs(RNG.standard_normal((50, 37))), ms.parse("hybrid 8x4 2:4 40%", ragged="dense")
    whole = ms.solve(scores, pattern)
    monkeypatch.setattr(passes, "PANEL_ENTRIES", 300)
    cut = ms.solve(scores, pattern)
    assert (cut.mask == whole.mask).all()
    assert (cut.status, cut.objective) == ("optimal", pytest.approx(whole.objective, rel=1e-14))
    assert cut.mask[48:].all()
    assert cut.mask[:, 36:].all()


def test_an_unproved_inner_solution_leaves_a_gap_that_holds() -> None:
    scores, pattern = np.abs(RNG.standard_normal((16, 32))), "hybrid 4x8 transposable 2:4 50%"
    late, proved = ms.solve(scores, pattern, time_limit_s=0), ms.solve(scores, pattern)
    assert late.status == "time_limit"
    assert late.objective <= proved.objective <= late.upper_bound
    assert ms.verify(late.mask, pattern)
    nested = ms.solve(scores, "block 4x8 50% nested transposable 2:4", time_limit_s=0)
    assert nested.status == "time_limit"


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 9)), min_size=1, max_size=7), st.integers(1, 7))
def test_the_violation_bounds_every_inner_solution(blocks: list[tuple[int, int]], keep: int) -> None:
    """Objective plus violation is `sum U + the k largest (T - U)`, where `U` is inner objective plus slack."""
    keep = min(keep, len(blocks))
    gains, slack = (np.array([values], np.float64) for values in zip(*blocks, strict=True))
    values = UnitValues(gains, 0, read_exact=iter)
    dense = best_of_all(values, keep)
    bound = slack.sum() + np.sort(gains - slack, axis=None)[len(blocks) - keep :].sum()
    violation = _violation(values, dense, slack)
    assert violation == pytest.approx(bound - gains[dense.mask].sum(), abs=1e-9)
    assert violation >= bound - gains[dense.mask].sum()
    if not slack.any():
        assert violation == 0.0


@pytest.mark.parametrize(("ragged", "cols"), [("pad", 4), ("pad", 5), ("dense", 5)])
@pytest.mark.parametrize("inner", ["1:2", "transposable 1:2", "2:2"])
@pytest.mark.parametrize("at_most", [False, True])
def test_every_mask_of_a_small_matrix_gets_the_right_verdict(ragged: Any, cols: int, inner: str, at_most: bool) -> None:
    """By the definition: some choice of exactly half of the blocks is dense, and the others obey the inner pattern."""
    pattern = ms.parse(f"hybrid 2x2 {inner} 50%", ragged=ragged)
    allowed = _allowed_masks(inner, ragged, cols)
    parts = {part for mask in allowed for part in _parts(mask)} if at_most else allowed
    for bits in range(2 ** (2 * cols)):
        mask = np.array([bits >> place & 1 for place in range(2 * cols)], bool).reshape(2, cols)
        assert bool(ms.verify(mask, pattern, at_most=at_most)) == (bits in parts), mask


def _allowed_masks(inner: str, ragged: str, cols: int) -> set[int]:
    tiles = {
        "1:2": [np.array(rows, bool) for rows in product(([1, 0], [0, 1]), repeat=2)],
        "transposable 1:2": [np.eye(2, dtype=bool), ~np.eye(2, dtype=bool)],
        "2:2": [np.ones((2, 2), bool)],
    }[inner]
    count = -(-cols // 2) if ragged == "pad" else cols // 2
    full = np.ones((2, 2), bool)
    allowed = set()
    for chosen in combinations(range(count), int(count / 2 + 0.5)):
        for blocks in product(*([full] if place in chosen else tiles for place in range(count))):
            mask = np.ones((2, cols), bool)
            joined = np.concatenate(blocks, axis=1)[:, :cols]
            mask[:, : joined.shape[1]] = joined
            allowed.add(sum(int(kept) << place for place, kept in enumerate(mask.flat)))
    return allowed


def _parts(mask: int) -> set[int]:
    """Every subset of the kept entries."""
    parts, part = {0}, mask
    while part:
        parts.add(part)
        part = (part - 1) & mask
    return parts


def test_verdicts_name_the_violation() -> None:
    pattern = ms.parse("hybrid 4x4 2:4 25%")
    mask = ms.solve(RNG.random((8, 8)), pattern).mask
    place = int(np.flatnonzero(mask.reshape(2, 4, 2, 4).all(axis=(1, 3)).reshape(-1))[0])
    block = np.s_[place // 2 * 4 :, place % 2 * 4 :]
    partly = mask.copy()
    partly[block][0, 0] = False
    verdict = ms.verify(partly, pattern)
    assert f"1 of 4 blocks are neither dense nor 2:4, the first is block [{place // 2}, {place % 2}]" in verdict.message
    assert verdict.tile == (place // 2, place % 2)
    more = ms.verify(np.ones((8, 8), bool), pattern)
    assert "4 blocks keep more than 2:4, only 1 may: block [0, 1] is one too many" in more.message
    fewer = ms.solve(RNG.random((8, 8)), "2:4").mask
    assert "0 blocks are dense instead of 1" in ms.verify(fewer, pattern).message
    edge = np.ones((9, 8), bool)
    edge[4:8] = [True, True, False, False] * 2
    edge[8, 0] = False
    dense = ms.parse("hybrid 4x8 2:4 50%", ragged="dense")
    assert "1 of 3 blocks of the edge are not dense, the first is block [2, 0]" in ms.verify(edge, dense).message


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.sampled_from(["hybrid 4x8 2:4 30%", "hybrid 4x4 transposable 1:4 60%", "hybrid 2x4 3:4 50%"]),
    st.sampled_from(["pad", "dense"]),
)
def test_capacity_is_what_the_best_mask_of_ones_keeps(shape: tuple[int, int], text: str, ragged: Any) -> None:
    pattern = ms.parse(text, ragged=ragged)
    try:
        pattern.grid(shape)
    except ms.PatternError:
        return
    solution = ms.solve(np.ones(shape, np.float32), pattern)
    assert ms.patterns.capacity(pattern, shape) == solution.kept
    assert ms.report(solution).fill == 1.0


@pytest.mark.parametrize("text", ["hybrid 4x8 2:4 30%", "hybrid 8x8 transposable 3:8 60%", "hybrid 3x9 1:3 40%"])
@pytest.mark.parametrize("shape", [(16, 24), (19, 30)])
@pytest.mark.parametrize("ragged", ["pad", "dense"])
def test_storage_is_what_blocks_really_take(text: str, shape: tuple[int, int], ragged: Any) -> None:
    pattern = ms.parse(text, ragged=ragged)
    if text.startswith("hybrid 3x9") and ragged == "dense":
        shape = (19, 32)
    solution = ms.solve(RNG.random(shape), pattern)
    n, m = pattern.inner.n, pattern.inner.m
    values, positions, offsets, flags = [], [], [], []
    for top, left in product(range(0, shape[0], pattern.rows), range(0, shape[1], pattern.cols)):
        block = solution.mask[top : top + pattern.rows, left : left + pattern.cols]
        offsets.append(np.uint32(len(values)))
        flags.append(bool(block.all()))
        if flags[-1]:
            values += [np.float16(1)] * block.size
            continue
        for row in block:
            for first in range(0, len(row), m):
                kept = [*np.flatnonzero(row[first : first + m]), *[0] * n][:n]
                values += [np.float16(1)] * n
                positions += [
                    "".join(str(position >> bit & 1) for bit in range((m - 1).bit_length())) for position in kept
                ]
    bits = np.packbits(np.array([*"".join(positions)], "U1") == "1")
    size = sum(np.array(part).nbytes for part in (values, offsets)) + bits.nbytes + np.packbits(flags).nbytes
    assert ms.report(solution).storage_bytes["hybrid"] == size


def test_other_patterns_have_no_hybrid_storage() -> None:
    assert "hybrid" not in ms.report(ms.solve(RNG.random((8, 8)), "2:4")).storage_bytes


@pytest.mark.parametrize(
    "text",
    ["hybrid 128x128 2:4 75%", "hybrid 16x32 transposable 8:16 12.5%", "hybrid 8x16 transposable 8:16 x 4:8 50%"],
)
def test_string_form_round_trips(text: str) -> None:
    assert str(ms.parse(text)) == text
    assert ms.parse(str(ms.parse(text, ragged="dense")), ragged="dense") == ms.parse(text, ragged="dense")
    assert ms.parse(text.upper().replace("X", " x ", 1)) == ms.parse(text)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("hybrid 0x4 2:4 50%", "sides"),
        ("hybrid 4x9999 2:4 50%", "sides"),
        ("hybrid 4x4 2:4 0%", "density"),
        ("hybrid 4x4 2:4 101%", "density"),
        ("hybrid 4x4 2:4", "hybrid 128x128 2:4 75%' with the share of dense blocks"),
        ("hybrid 4x4 50%", "not a pattern"),
        ("hybrid 4x6 2:4 50%", "tiles of 1x4 do not fill blocks of 4x6"),
        ("hybrid 8x16 transposable 8:16 50%", "tiles of 16x16 do not fill"),
        ("hybrid 4x4 <=2:4 50%", "exact fill along 'in'"),
        ("hybrid 4x4 5:4 50%", "between 1 and m"),
        ("hybrid 4x4 8:2:8 50%", "n:m pattern, such as 2:4"),
        ("hybrid 4x4 transposible 2:4 50%", "did you mean 'transposable 2:4'"),
    ],
)
def test_malformed_patterns_are_named(text: str, word: str) -> None:
    with pytest.raises(ms.PatternError, match=word):
        ms.parse(text)


def test_what_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(ms.PatternError, match=r"hybrid 4x4 2:4 10%: 10% of 4 blocks rounds to none"):
        ms.solve(np.ones((8, 8)), "hybrid 4x4 2:4 10%")
    with pytest.raises(ms.PatternError, match="do not cover a 9x8 matrix"):
        ms.solve(np.ones((9, 8)), ms.parse("hybrid 4x4 2:4 50%", ragged="error"))
    with pytest.raises(ms.PatternError, match="no whole block fits a 3x8 matrix"):
        ms.solve(np.ones((3, 8)), ms.parse("hybrid 4x4 2:4 50%", ragged="dense"))
    with pytest.raises(ms.PatternError, match="axis"):
        ms.parse("hybrid 4x4 2:4 50%", axis="out")
    for inner in (ms.NM(2, 4, axis="out"), ms.NM(2, 4, ragged="dense"), ms.NM(2, 4, fill="at_most")):
        with pytest.raises(ms.PatternError, match="the inner pattern must be n:m of exact fill along 'in'"):
            ms.Hybrid(4, 4, inner, 0.5)
    with pytest.raises(ms.PatternError, match=r"inner=64:2:8: the blocks that are not dense obey an n:m pattern"):
        ms.Hybrid(64, 8, ms.VNM(64, 2, 8), 0.5)  # type: ignore[arg-type]
    with pytest.raises(ms.PatternError, match="ragged='cut'"):
        ms.Hybrid(4, 4, ms.NM(2, 4), 0.5, "cut")  # type: ignore[arg-type]


def test_what_hybrid_patterns_do_not_support_is_refused_by_name() -> None:
    scores, text = RNG.random((8, 8)), "hybrid 4x4 2:4 50%"
    with pytest.raises(ms.SolverError, match=f"must_keep is not supported by {text}"):
        ms.solve(scores, text, must_keep=scores > 0.9)
    with pytest.raises(ms.SolverError, match=f"exact does not solve {text}"):
        ms.solve(scores, text, "exact")
    with pytest.raises(ms.PatternError, match=f"{text}: a budget distributes"):
        ms.allocate({"a": scores}, text, "50%")
    with pytest.raises(ms.PatternError, match=f"{text}: only N:M patterns support channel permutation"):
        ms.permute(scores, text)


def test_convolutions_are_read_channels_last_or_flat() -> None:
    kernel, text = RNG.random((8, 4, 3, 3)), "hybrid 4x12 2:4 50%"
    last = ms.solve(kernel, text)
    matrix = ms.solve(np.moveaxis(kernel, 1, -1).reshape(8, -1), text)
    assert (np.moveaxis(last.mask, 1, -1).reshape(8, -1) == matrix.mask).all()
    flat = ms.solve(kernel, text, view="flat")
    assert (flat.mask.reshape(8, -1) == ms.solve(kernel.reshape(8, -1), text).mask).all()
    assert ms.verify(last.mask, text)
    assert ms.verify(flat.mask, text, view="flat")


@pytest.mark.parametrize("layout", ["stack out in", "stack in out"])
def test_each_matrix_of_a_stack_has_its_own_dense_blocks(layout: str) -> None:
    scores, text = RNG.random((3, 8, 16)), "hybrid 4x4 2:4 25%"
    scores[0] *= 100
    solution = ms.solve(scores, text, layout=layout)
    turn = (lambda matrix: matrix) if layout == "stack out in" else np.transpose
    for matrix, mask in zip(scores, solution.mask, strict=True):
        assert (turn(mask) == ms.solve(turn(matrix), text).mask).all()
    assert solution.status == "optimal"
    assert ms.verify(solution.mask, text, layout=layout)
    single = ms.report(ms.solve(turn(scores[0]), text)).storage_bytes["hybrid"]
    # Each matrix rounds its flags up to whole bytes: 8 blocks fill one.
    assert ms.report(solution, layout=layout).storage_bytes["hybrid"] == 3 * single


def test_fused_parts_that_blocks_do_not_cover_are_solved_on_their_own() -> None:
    layout = ms.layouts.Layout.parse("out in", out_parts=(6, 10))
    scores, text = RNG.random((16, 8)), "hybrid 4x4 2:4 50%"
    solution = ms.solve(scores, text, layout=layout)
    assert (solution.mask[:6] == ms.solve(scores[:6], text).mask).all()
    assert (solution.mask[6:] == ms.solve(scores[6:], text).mask).all()
    assert ms.verify(solution.mask, text, layout=layout)
