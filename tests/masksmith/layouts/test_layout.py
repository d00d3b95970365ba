"""Layouts: which axis is summed over, how many matrices there are, and the views that solvers get."""

import numpy as np
import pytest
import torch

from masksmith.layouts import Layout, LayoutError
from masksmith.patterns import parse

E, O, I, K, L = 3, 6, 4, 5, 2  # noqa: E741
PRODUCTS = {
    "out in": ((O, I), "oi->oi"),
    "in out": ((I, O), "io->oi"),
    "stack out in": ((E, O, I), "soi->soi"),
    "stack in out": ((E, I, O), "sio->soi"),
    "out stack in": ((O, E, I), "osi->soi"),
    "out in kernel": ((O, I, K), "oik->oik"),
    "in out kernel kernel": ((I, O, K, L), "iokl->oikl"),
    "stack stack in out": ((E, L, I, O), "stio->stoi"),
}


@pytest.mark.parametrize("axes", PRODUCTS)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_matrices_are_those_that_an_einsum_gives(axes, library):
    shape, product = PRODUCTS[axes]
    tensor = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    layout = Layout.parse(axes)
    expected = np.einsum(product, tensor)
    expected = expected.reshape(-1, *layout.matrix_shape(shape))
    matrices = layout.matrices(torch.from_numpy(tensor) if library == "torch" else tensor)
    assert len(matrices) == layout.count(shape) == len(expected)
    for matrix, other in zip(matrices, expected, strict=True):
        assert tuple(matrix.shape) == other.shape
        assert np.array_equal(np.asarray(matrix), other)


def test_matrices_are_views():
    tensor = np.zeros((E, I, O))
    Layout.parse("stack in out").matrices(tensor)[1][2, 3] = 1.0
    assert tensor[1, 3, 2] == 1.0


@pytest.mark.parametrize("axes", PRODUCTS)
def test_a_layout_is_written_as_it_is_read(axes):
    assert str(Layout.parse(axes)) == axes
    assert Layout.parse(axes).is_transposed == (axes in {"in out", "stack in out", "out stack in"} or "in out" in axes)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ("", "must say 'out' and 'in' once each"),
        ("in in", "must say 'out' and 'in' once each"),
        ("stack in", "must say 'out' and 'in' once each"),
        ("out in rows", "axis 'rows' is not one of: stack, out, in, kernel"),
    ],
)
def test_axes_that_describe_no_matrices_are_refused(axes, message):
    with pytest.raises(LayoutError, match=message):
        Layout.parse(axes)


def test_a_shape_of_another_length_is_refused():
    with pytest.raises(LayoutError, match=r"axes 'in out' are for 2 dimensions, but the shape \[2, 3, 4\] has 3"):
        Layout.parse("in out").matrices(np.zeros((2, 3, 4)))


def test_parts_that_do_not_add_up_are_refused():
    with pytest.raises(LayoutError, match=r"out_parts \[4, 4\] add up to 8, not to 12 rows"):
        Layout.parse("out in", out_parts=(4, 4)).check((12, 8))
    with pytest.raises(LayoutError, match="must be positive"):
        Layout.parse("out in", out_parts=(12, 0))


@pytest.mark.parametrize(
    ("pattern", "ranges"),
    [
        ("2:4", [(0, 18)]),
        ("transposable 1:2", [(0, 18)]),
        ("transposable 2:4", [(0, 6), (6, 12), (12, 18)]),
        ("4:2:8", [(0, 6), (6, 12), (12, 18)]),
        ("block 3x4 50%", [(0, 18)]),
        ("block 4x4 50%", [(0, 6), (6, 12), (12, 18)]),
        ("hybrid 3x4 2:4 50%", [(0, 18)]),
        ("hybrid 4x4 2:4 50%", [(0, 6), (6, 12), (12, 18)]),
        ("50%", [(0, 18)]),
    ],
)
def test_fused_parts_are_apart_only_where_tiles_would_cross_them(pattern, ranges):
    layout = Layout.parse("out in", out_parts=(6, 6, 6))
    assert layout.row_ranges(parse(pattern), (18, 16)) == ranges
