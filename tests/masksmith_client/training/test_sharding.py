"""Masks of sharded weights travel as bits, packed along an axis that is not divided."""

import copy

import numpy as np
import pytest
import torch
from torch.distributed.tensor import Replicate, Shard

from masksmith_client.training.sharding import Sharding, _pack, _unpack


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shape", [(8, 16, 3), (5, 1, 9), (0, 7, 2)])
def test_bits_are_packed_along_any_axis(shape, axis):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.5
    packed = _pack(mask, axis)
    assert np.array_equal(packed.numpy(), np.packbits(mask.numpy(), axis=axis, bitorder="little"))
    assert torch.equal(_unpack(packed, axis, shape[axis]), mask)


class Mesh:
    """The sizes of a mesh, without its processes."""

    def __init__(self, *sizes):
        self.sizes = sizes

    def size(self, dim):
        return self.sizes[dim]


@pytest.mark.parametrize(
    ("sizes", "placements", "expected"),
    [
        ((2,), (Shard(0),), True),
        ((1,), (Shard(0),), False),
        ((2,), (Replicate(),), False),
        ((2, 1), (Replicate(), Shard(1)), False),
        ((2, 2), (Replicate(), Shard(1)), True),
    ],
)
def test_nothing_is_gathered_where_every_rank_has_the_whole(sizes, placements, expected):
    sharding = Sharding(Mesh(*sizes), placements, (4, 8))
    assert sharding.is_divided is expected
    mask = torch.ones(4, 8, dtype=torch.bool)
    assert expected or sharding.gather(mask) is mask


def test_a_copy_of_a_model_is_on_the_same_ranks():
    sharding = Sharding(Mesh(2), (Shard(0),), (4, 8))
    assert copy.deepcopy({"sharding": sharding})["sharding"] is sharding
