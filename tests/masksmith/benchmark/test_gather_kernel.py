"""masksmith's own n:m product against float64, at every edge of its vectors."""

import numpy as np
import pytest

import masksmith as ms
from masksmith.benchmark.kernels.gather import pack_groups
from masksmith.kernels.sparse_product import gather_dots, gather_rows


def masked(rows, cols, pattern, dtype=np.float32, seed=0):
    weight = np.random.default_rng(seed).standard_normal((rows, cols)).astype(dtype)
    return weight * ms.solve(ms.magnitude(weight), pattern).mask


@pytest.mark.parametrize("kernel", [gather_dots, gather_rows])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [1, 2, 15, 16, 17, 33, 64, 70, 131])
@pytest.mark.parametrize(("rows", "cols", "n", "m"), [(16, 32, 2, 4), (40, 48, 8, 16), (7, 60, 1, 20), (33, 64, 5, 64)])
def test_it_is_the_product(kernel, dtype, batch, rows, cols, n, m):
    matrix = masked(rows, cols, f"{n}:{m}", dtype)
    x = np.random.default_rng(1).standard_normal((batch, cols)).astype(dtype)
    values, places = pack_groups(matrix, n, m)
    y = np.full((batch, rows), np.nan, dtype)
    kernel(values, places, n, m, x, y, 0, values.shape[0])
    exact = x.astype(np.float64) @ matrix.T.astype(np.float64)
    bound = np.abs(x.astype(np.float64)) @ np.abs(matrix.T.astype(np.float64)) * (cols + 2) * np.finfo(dtype).eps
    assert np.all(np.abs(y - exact) <= bound)


def test_rows_can_be_shared_out():
    matrix = masked(48, 32, "2:4")
    x = np.random.default_rng(1).standard_normal((20, 32), dtype=np.float32)
    values, places = pack_groups(matrix, 2, 4)
    whole, parts = np.zeros((20, 48), np.float32), np.zeros((20, 48), np.float32)
    gather_rows(values, places, 2, 4, x, whole, 0, 48)
    for first, last in ((32, 48), (0, 32)):
        gather_rows(values, places, 2, 4, x, parts, first, last)
    assert np.array_equal(whole, parts)


def test_groups_that_hold_fewer_are_filled_with_zeros():
    matrix = np.zeros((3, 8), np.float32)
    matrix[1, 6] = 5.0
    values, places = pack_groups(matrix, 2, 4)
    assert values.shape == places.shape == (16, 4)
    assert values.sum() == 5.0
    assert places[1, np.flatnonzero(values[1])] == 2


def test_an_entry_takes_its_bytes_and_one_more():
    values, places = pack_groups(masked(64, 64, "2:16"), 2, 16)
    assert values.nbytes + places.nbytes == 64 * 64 // 8 * (4 + 1)
