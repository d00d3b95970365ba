"""Data structures of the shortest-path solver: sizes, padding and initial values."""

import numpy as np
import pytest

from masksmith.kernels.tile import new_search, new_tile, set_kept


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (4, 7), (8, 8), (9, 5)])
def test_a_new_tile_is_free_and_keeps_nothing(rows, cols):
    tile = new_tile(rows, cols)
    assert [part.size for part in tile] == [rows * cols] * 6 + [rows, cols]
    assert not tile.kept.any()
    assert not tile.kept_t.any()
    assert tile.free.all()
    assert tile.free_t.all()
    assert not tile.u.any()
    assert not tile.v.any()


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (4, 7), (8, 9), (16, 17)])
def test_lines_of_a_search_are_padded_to_whole_vectors_of_infinite_cost(rows, width):
    search = new_search(rows, width)
    tall, wide = -(-rows // 8) * 8, -(-width // 8) * 8
    assert search.add_cost.tolist() == [np.inf] * (rows * wide)
    assert search.drop_cost.tolist() == [np.inf] * (width * tall)
    assert (len(search.row_d), len(search.col_d)) == (tall, wide)
    assert (len(search.row_from), len(search.col_from)) == (tall, wide)
    assert (len(search.excess), len(search.slack), len(search.used)) == (width, width, rows)


def test_both_copies_of_the_mask_change():
    tile = new_tile(3, 5)
    for i, j in ((0, 0), (2, 4), (1, 3)):
        set_kept(tile, 3, 5, i, j, 1)
    set_kept(tile, 3, 5, 2, 4, 0)
    expected = np.zeros((3, 5), np.uint8)
    expected[0, 0] = expected[1, 3] = 1
    assert np.array_equal(tile.kept.reshape(3, 5), expected)
    assert np.array_equal(tile.kept_t.reshape(5, 3), expected.T)
