"""Drawings of patterns are allowed masks."""

import random

import numpy as np
import pytest

import masksmith as ms
from masksmith.patterns import Block
from masksmith_service.pages import choices, mask_drawings
from masksmith_service.pages.choices import describe_pattern
from masksmith_service.pages.mask_drawings import MAX_SWAPS, draw


def mask_of(pattern):
    drawing = draw(pattern)
    mask = np.array(drawing.mask)
    assert mask.shape == (drawing.height, drawing.width)
    return mask, drawing.piece_shape


PLAIN = ("2:4", "1:3", "<=3:8")
TEXTS = (*PLAIN, "transposable 2:4", "transposable 8:16", "transposable 32:64", "16:2:8")


@pytest.mark.parametrize(("text", "axis"), [*((text, "in") for text in TEXTS), *((text, "out") for text in PLAIN)])
def test_tiles_obey_the_pattern(text, axis):
    pattern = ms.parse(text, axis=axis)
    mask, _ = mask_of(pattern)
    assert ms.verify(mask, pattern).ok


@pytest.mark.parametrize("nested", [None, "2:4", "2:8", "1:3", "transposable 3:6"])
def test_blocks_are_empty_or_hold_whole_tiles(nested):
    inner = None if nested is None else ms.parse(nested)
    mask, (height, width) = mask_of(Block(48, 48, 0.5, nested=inner))
    assert mask.shape[0] % height == mask.shape[1] % width == 0
    kept = 0
    for row in range(0, mask.shape[0], height):
        for col in range(0, mask.shape[1], width):
            block = mask[row : row + height, col : col + width]
            if block.any():
                kept += 1
                assert block.all() if inner is None else ms.verify(block, inner).ok
    assert 2 * kept == mask.size // (height * width)


@pytest.mark.parametrize("inner", ["2:4", "2:8", "transposable 3:6"])
def test_blocks_of_hybrids_are_full_or_hold_whole_tiles(inner):
    mask, (height, width) = mask_of(ms.parse(f"hybrid 48x48 {inner} 75%"))
    for row in range(0, mask.shape[0], height):
        for col in range(0, mask.shape[1], width):
            block = mask[row : row + height, col : col + width]
            assert block.all() or ms.verify(block, ms.parse(inner)).ok


class CountedRandom(random.Random):
    samples = 0

    def sample(self, *arguments, **options):
        CountedRandom.samples += 1
        return super().sample(*arguments, **options)


@pytest.mark.parametrize("text", ["transposable 32:64", "hybrid 128x128 transposable 31:64 1%"])
def test_a_drawing_of_large_tiles_takes_a_limited_number_of_swaps_and_is_kept(monkeypatch, text):
    monkeypatch.setattr(mask_drawings.random, "Random", CountedRandom)
    CountedRandom.samples = 0
    choices._draw.cache_clear()
    first = describe_pattern(text).drawing
    tiles = first.height * first.width // 64**2
    assert 0 < CountedRandom.samples <= tiles * (2 * MAX_SWAPS + 1) + 1
    CountedRandom.samples = 0
    assert describe_pattern(text).drawing is first
    assert CountedRandom.samples == 0
