"""Arrays that cannot be read are refused alike, by name, wherever they are passed."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

import masksmith as ms

RNG = np.random.default_rng(5)
WEIGHT = RNG.standard_normal((8, 16))
INPUTS = RNG.standard_normal((64, 16))
GRAM = INPUTS.T @ INPUTS
SCORES = np.abs(WEIGHT)
MASK = ms.solve(SCORES, "2:4").mask
NORMS = np.sqrt(GRAM.diagonal())


UNREADABLE = [
    ("masked array", lambda x: np.ma.array(x, mask=np.arange(x.size).reshape(x.shape) == 3)),
    ("byte order", lambda x: x.astype(">f4")),
    ("dtype object", lambda x: x.astype(object)),
    ("dtype complex128", lambda x: x.astype(complex)),
    ("sparse_coo", lambda x: torch.from_numpy(x).to_sparse()),
    ("sparse_csr", lambda x: torch.from_numpy(x).to_sparse_csr()),
    ("device meta", lambda x: torch.from_numpy(x).to("meta")),
    ("FakeTensor", lambda x: FakeTensorMode().from_tensor(torch.from_numpy(x))),
    ("nested", lambda x: torch.nested.nested_tensor([torch.from_numpy(x)])),
    ("not initialised", lambda x: torch.nn.LazyLinear(8).weight),
    ("a Linear is not", lambda x: torch.nn.Linear(4, 4)),
    ("a list is not", lambda x: [[1.0, 2.0], [1.0]]),
    ("a NoneType is not", lambda x: None),
    ("pass its mask", lambda x: ms.solve(SCORES, "2:4")),
]
"""What cannot be read as an array of real numbers, made from an array, each after a part of the reason."""
CALLS = {
    "solve": (SCORES, lambda values: ms.solve(values, "2:4", name="w")),
    "solve_many": (SCORES, lambda values: ms.solve_many({"w": values}, "2:4")),
    "solve by layout": (SCORES, lambda values: ms.solve(values, "2:4", layout="in out")),
    "weight of solve": (WEIGHT, lambda values: ms.solve(SCORES, "2:4", weight=values)),
    "must_drop": (~MASK, lambda values: ms.solve(SCORES, "2:4", must_drop=values)),
    "verify": (MASK, lambda values: ms.verify(values, "2:4")),
    "magnitude": (WEIGHT, ms.magnitude),
    "wanda": (WEIGHT, lambda values: ms.wanda(values, NORMS)),
    "taylor": (WEIGHT, lambda values: ms.taylor(values, WEIGHT)),
    "gradient": (WEIGHT, lambda values: ms.taylor(WEIGHT, values)),
    "sparsegpt": (GRAM, lambda values: ms.sparsegpt(WEIGHT, gram=values)),
    "activations": (INPUTS, lambda values: ms.sipp(WEIGHT, values)),
    "reconstruct": (WEIGHT, lambda values: ms.reconstruct(values, MASK, GRAM)),
    "mask of reconstruct": (MASK, lambda values: ms.reconstruct(WEIGHT, values, GRAM)),
    "gram of reconstruct": (GRAM, lambda values: ms.reconstruct(WEIGHT, MASK, values)),
    "admm": (WEIGHT, lambda values: ms.admm(values, GRAM, "2:4")),
    "gram of refine": (GRAM, lambda values: ms.refine(WEIGHT, MASK, values, "2:4")),
}
OPTIONAL = ("weight of solve", "must_drop", "sparsegpt")
"""Calls in which None leaves an option out."""


@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:The PyTorch API of nested", "ignore:Lazy modules")
@pytest.mark.parametrize("call", CALLS)
def test_what_cannot_be_read_is_refused(call):
    readable, run = CALLS[call]
    run(readable)
    for reason, make in UNREADABLE:
        unreadable = make(readable)
        if unreadable is None and call in OPTIONAL:
            continue
        with pytest.raises(ms.MasksmithError, match=reason):
            run(unreadable)


def test_a_masked_array_that_hides_nothing_is_read():
    assert np.array_equal(ms.solve(np.ma.array(SCORES), "2:4").mask, MASK)


def test_arrays_are_read_while_another_thread_imports_torch(monkeypatch):
    """Until the import ends, `sys.modules` has a module without the names that it will have."""
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    assert np.array_equal(ms.solve(SCORES, "2:4").mask, MASK)
    assert ms.sipp(WEIGHT, INPUTS).shape == WEIGHT.shape


def test_lists_are_read():
    mask, gram = MASK.tolist(), GRAM.tolist()
    expected = ms.reconstruct(WEIGHT, MASK, GRAM).weight
    assert np.array_equal(ms.reconstruct(WEIGHT.tolist(), mask, gram).weight, expected)
    assert np.array_equal(ms.solve(SCORES.tolist(), "2:4", layout="out in").mask, MASK)
    assert ms.verify(mask, "2:4")


def test_tensors_with_the_negative_bit_are_read():
    real = torch.from_numpy(WEIGHT)
    negated = torch.view_as_complex(torch.stack([real, -real], -1)).conj().imag
    assert negated.is_neg()
    magnitudes = ms.magnitude(negated)
    assert torch.equal(ms.solve(magnitudes, "2:4").mask, torch.from_numpy(MASK))
    scores = torch.view_as_complex(torch.stack([real.abs(), -real.abs()], -1)).conj().imag
    assert torch.equal(ms.solve(scores, "2:4", weight=negated).mask, torch.from_numpy(MASK))
    refined = ms.refine(negated, torch.from_numpy(MASK), GRAM, "2:4")
    assert torch.equal(refined.mask, ms.refine(real, torch.from_numpy(MASK), GRAM, "2:4").mask)


@pytest.mark.parametrize("option", ["warm_start", "must_keep", "must_drop"])
def test_masks_with_nan_are_refused(option):
    mask = np.where(np.arange(128).reshape(8, 16) == 7, np.nan, MASK)
    with pytest.raises(ms.ScoresError, match=f"'{option}': a mask holds NaN"):
        ms.solve(SCORES, "2:4", **{option: mask})


@pytest.mark.parametrize("factor", [1e-300, 1e300])
def test_updates_refuse_what_over_or_underflows(factor):
    for weight, gram in ((WEIGHT, GRAM * factor), (WEIGHT * factor, GRAM)):
        with pytest.raises(ms.UpdateError, match="the largest entry of"):
            ms.reconstruct(weight, MASK, gram)


def test_admm_refuses_a_start_that_is_no_solution():
    with pytest.raises(ms.UpdateError, match="start is a ndarray"):
        ms.admm(WEIGHT, GRAM, "2:4", start=MASK)
