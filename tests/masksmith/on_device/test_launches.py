"""Launches stay within what a driver accepts; the simulator accepts more."""

import pytest
import torch

import masksmith as ms
from masksmith.cuda.band import Band
from masksmith.cuda.launcher import Launcher

MAX_BLOCKS_OF_LATER_DIMENSIONS = 65_535
THREADS = 256


@pytest.mark.parametrize(
    ("down", "across", "blocks"),
    [
        (MAX_BLOCKS_OF_LATER_DIMENSIONS + 1, 2, MAX_BLOCKS_OF_LATER_DIMENSIONS + 1),
        (1, (MAX_BLOCKS_OF_LATER_DIMENSIONS + 1) * THREADS // 4, MAX_BLOCKS_OF_LATER_DIMENSIONS + 1),
        (2, THREADS // 4 + 1, 2 * 2),
    ],
)
def test_a_grid_of_one_dimension_holds_the_tiles_of_tall_and_wide_matrices(monkeypatch, down, across, blocks):
    grids = []
    monkeypatch.setattr(Launcher, "launch", lambda self, kernel, blocks, *others: grids.append(blocks))
    scores = torch.zeros(4 * down, 4 * across, device="meta")
    Band(scores, ms.parse("transposable 2:4").tile, down, across)._certify()
    assert grids == [blocks]


def test_a_pass_without_tiles_is_not_launched():
    class Kernel:
        def __getitem__(self, configuration):
            raise AssertionError("a driver refuses a grid of 0 blocks")

    Launcher(torch.device("cpu")).launch(Kernel(), 0, (2, 4))
