"""Tensors that adapters cannot mask are refused by name; torch crashes with some of them."""

import warnings

import numpy as np
import pytest
import torch

import masksmith as ms
from masksmith import adapters

MASK = ms.solve(np.random.default_rng(0).random((8, 16)), "2:4")
KEPT = torch.from_numpy(MASK.mask)
FLOATS = torch.randn(8, 16)

with warnings.catch_warnings():  # torch deprecates these tensors, and warns once for each process
    warnings.simplefilter("ignore")
    QUANTISED = torch.quantize_per_tensor(FLOATS, 0.1, 5, torch.quint8)

UNREADABLE = {
    "quantised": (QUANTISED, "dtype quint8 is quantised; use tensor.deq"),
    "sparse": (FLOATS.to_sparse(), "sparse_coo is not dense"),
    "masked": (np.ma.array(FLOATS.numpy(), mask=~MASK.mask), "a masked array hides entries"),
    "other byte order": (FLOATS.numpy().astype(">f4"), "another byte order"),
    "complex": (FLOATS.to(torch.complex64), "complex64 is not one of real numbers"),
    "a solution": (MASK, "a Solution is not an array of numbers; pass its mask"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_cannot_be_read_is_refused_by_name(kind):
    tensor, reason = UNREADABLE[kind]
    for call, name in (
        (lambda: adapters.dense_state({"w": tensor}, {"w": KEPT}), "w"),
        (lambda: adapters.dense_state({"w": FLOATS}, {"w": tensor}), "w"),
        (lambda: adapters.pruned_state({"w": tensor}, {"w": KEPT}), "w"),
        (lambda: adapters.to_bsr(tensor, KEPT, (4, 4)), "weight"),
        (lambda: adapters.to_bsr(FLOATS, tensor, (4, 4)), "mask"),
        (lambda: adapters.to_semi_structured(FLOATS, tensor), "mask"),
        (lambda: adapters.custom_from_mask(torch.nn.Linear(16, 8), tensor), "mask"),
    ):
        with pytest.raises(ms.ScoresError, match=rf"^tensor '{name}'.*{reason}"):
            call()


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64, torch.int64, torch.float16, torch.bool])
def test_dropped_entries_of_every_dtype_become_zero(dtype):
    weight = torch.full((8, 16), 3, dtype=torch.int64).to(dtype)
    dense = adapters.dense_state({"w": weight}, {"w": KEPT})["w"]
    assert dense.dtype == dtype
    assert torch.equal(dense.to(torch.int64), weight.to(torch.int64) * KEPT)
    assert torch.equal(ms.solve(FLOATS.abs(), "2:4", weight=weight).pruned != 0, ms.solve(FLOATS.abs(), "2:4").mask)


def test_blocks_are_made_of_numpy_arrays():
    assert torch.equal(adapters.to_bsr(FLOATS.numpy(), MASK.mask, (4, 4)).to_dense(), FLOATS * KEPT)
    assert torch.equal(adapters.dense_state({"w": FLOATS}, {"w": MASK.mask.tolist()})["w"], FLOATS * KEPT)
