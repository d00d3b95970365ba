"""Launches stay within what a driver accepts; the simulator accepts more."""

import torch

import masksmith as ms
from masksmith.cuda.band import Band
from masksmith.cuda.launcher import Launcher

MAX_BLOCKS_OF_LATER_DIMENSIONS = 65_535


def test_a_grid_holds_the_tile_rows_of_a_tall_matrix(monkeypatch):
    grids = []
    monkeypatch.setattr(Launcher, "launch", lambda self, kernel, blocks, *others: grids.append(blocks))
    down = MAX_BLOCKS_OF_LATER_DIMENSIONS + 1
    Band(torch.zeros(4 * down, 8), ms.parse("transposable 2:4").tile, down, 2)._certify()
    assert grids == [(down, 1)]


def test_a_pass_without_tiles_is_not_launched():
    class Kernel:
        def __getitem__(self, configuration):
            raise AssertionError("a driver refuses a grid of 0 blocks")

    Launcher(torch.device("cpu")).launch(Kernel(), 0, (2, 4))
