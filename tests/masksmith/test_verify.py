"""The verifier, against enumeration of all masks of small padded tiles."""

from __future__ import annotations

import importlib
import tracemalloc
from itertools import product

import numpy as np
import pytest
import torch

import masksmith as ms
from masksmith._verify.tiles import broken_tiles
from masksmith.patterns import TileSpec

verify_module = importlib.import_module("masksmith._verify.verify")


def allowed_whole(mask: np.ndarray, tile: TileSpec) -> bool:
    rows, cols = mask.sum(axis=1), mask.sum(axis=0)
    if tile.at_most:
        return bool((rows <= tile.row_keep).all() and (cols <= tile.col_keep).all())
    return bool((rows == tile.row_keep).all() and (cols == tile.col_keep).all())


def all_masks(rows: int, cols: int) -> list[np.ndarray]:
    return [np.array(bits, bool).reshape(rows, cols) for bits in product((0, 1), repeat=rows * cols)]


@pytest.mark.parametrize(
    "text", ["transposable 1:3", "transposable 2:3", "transposable <=2:3", "transposable <=1:3 x 2:3"]
)
def test_crops_are_allowed_if_and_only_if_padding_completes_them(text: str) -> None:
    pattern = ms.parse(text)
    whole = [mask for mask in all_masks(3, 3) if allowed_whole(mask, pattern.tile)]
    for height, width in product((1, 2, 3), repeat=2):
        crops = {mask[:height, :width].tobytes() for mask in whole}
        for mask in all_masks(height, width):
            assert bool(ms.verify(mask, pattern)) == (mask.tobytes() in crops)


def test_the_first_broken_tile_is_named() -> None:
    mask = np.tile(np.array([[1, 1, 0, 0], [0, 0, 1, 1]], bool).repeat(2, axis=0), (2, 3))
    assert ms.verify(mask, "transposable 2:4").ok
    mask[5, 9] ^= True
    verdict = ms.verify(mask, "transposable 2:4")
    assert (verdict.ok, verdict.tile, verdict.broken, verdict.tiles) == (False, (1, 2), 1, 6)
    assert "[1, 2]" in verdict.message


def test_dense_edges_must_be_whole() -> None:
    pattern = ms.parse("transposable 2:4", ragged="dense")
    mask = np.ones((6, 5), bool)
    mask[:4, :4] = ms.solve(np.ones((4, 4)), "transposable 2:4").mask
    assert ms.verify(mask, pattern).ok
    for spot, tile in (((5, 4), (1, 1)), ((5, 0), (1, 0)), ((0, 4), (0, 1))):
        broken = mask.copy()
        broken[spot] = False
        assert ms.verify(broken, pattern).tile == tile


def test_plain_patterns_count_along_their_axis() -> None:
    mask = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]], bool)
    assert ms.verify(mask, "2:4").ok
    assert not ms.verify(mask, ms.NM(2, 4, axis="out")).ok
    assert ms.verify(mask.T, ms.NM(2, 4, axis="out")).ok


def test_ragged_plain_groups_may_lean_on_the_padding() -> None:
    assert ms.verify(np.array([[1, 1, 0, 0, 1, 0]], bool), "2:4").ok
    assert ms.verify(np.array([[1, 1, 0, 0, 0, 0]], bool), "2:4").ok
    assert not ms.verify(np.array([[1, 1, 1, 0, 0, 0]], bool), "2:4").ok
    assert not ms.verify(np.array([[1, 1, 0, 0, 0]], bool), "3:4").ok


@pytest.mark.parametrize("ragged", ["pad", "dense"])
@pytest.mark.parametrize("pattern", ["2:4", "transposable 2:4", "transposable 4:8 x 2:4"])
def test_bands_of_tile_rows_are_checked_as_single_ones(monkeypatch, pattern, ragged):
    shape = (37, 22)
    pattern = ms.parse(pattern, ragged=ragged)
    mask = ms.solve(np.random.default_rng(0).random(shape), pattern).mask
    broken = mask ^ (np.random.default_rng(1).random(shape) < 0.03)
    verdicts = {}
    for entries in (1, 100, 500, 2**18):
        monkeypatch.setattr(verify_module, "BAND_ENTRIES", entries)
        assert ms.verify(mask, pattern)
        verdicts[entries] = ms.verify(broken, pattern)
    assert len(set(verdicts.values())) == 1
    assert 1 < verdicts[1].broken < verdicts[1].tiles


def test_a_tensor_of_many_short_rows_is_checked_in_few_calls(monkeypatch):
    calls = []
    monkeypatch.setattr(
        verify_module,
        "broken_tiles",
        lambda rows, pattern, at_most: calls.append(len(rows)) or broken_tiles(rows, pattern, at_most=at_most),
    )
    assert ms.verify(np.zeros((100_003, 1), bool), "2:4", at_most=True)
    assert sum(calls) == 100_003
    assert len(calls) < 5


def test_memory_does_not_grow_with_the_number_of_violations() -> None:
    mask = np.ones((2048, 1024), bool)
    ms.verify(mask[:4], "2:4")  # Loads what is loaded at first use.
    tracemalloc.start()
    verdict = ms.verify(mask, "2:4")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert verdict.broken == verdict.tiles
    assert verdict.tile == (0, 0)
    assert peak < 8 * mask.size


@pytest.mark.parametrize("pattern", ["4:4", "transposable 2:4", "block 4x4 50%", "100%"])
def test_a_mask_that_holds_nan_is_refused(pattern: str) -> None:
    mask = np.ones((8, 8))
    mask[7, 7] = np.nan
    for given in (mask, torch.from_numpy(mask), torch.from_numpy(mask).bfloat16()):
        with pytest.raises(ms.ScoresError, match="'mask': a mask holds NaN"):
            ms.verify(given, pattern)
        with pytest.raises(ms.ScoresError, match="'mask': a mask holds NaN"):
            ms.verify(given, pattern, layout="in out")
