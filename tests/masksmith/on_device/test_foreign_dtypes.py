"""Arrays of dtypes that torch does not take from numpy, such as bfloat16 of ml_dtypes, are copied to a device."""

from types import SimpleNamespace

import numpy as np
import torch

from masksmith.cuda.solve import DeviceSolve, is_taken_by_torch

DEVICE = SimpleNamespace(device=torch.device("cpu"))
FOREIGN = np.longdouble
"""Stands for the dtypes of ml_dtypes, a package that the tests do not need."""


def test_arrays_of_foreign_dtypes_are_copied_as_float32():
    values = np.arange(6).reshape(2, 3)
    assert [is_taken_by_torch(np.dtype(each)) for each in (np.float32, np.float16, np.int8, FOREIGN)] == [True] * 3 + [
        False
    ]
    copied = DeviceSolve._to_device(DEVICE, values.astype(FOREIGN).T)
    assert copied.dtype is torch.float32
    assert np.array_equal(copied.numpy(), values.T)
    assert DeviceSolve._to_device(DEVICE, values.astype(np.float16)).dtype is torch.float16


def test_weights_of_foreign_dtypes_are_pruned_on_the_host_in_their_dtype():
    grid = SimpleNamespace(rows=4, cols=8)
    for dtype, is_pruned_on_device in ((np.float32, True), (FOREIGN, False)):
        options = SimpleNamespace(weight=np.ones((4, 8), dtype))
        problem = SimpleNamespace(
            height=4, width=8, grid=grid, options=options, source=SimpleNamespace(tensor_shape=(4, 8))
        )
        solve = SimpleNamespace(problem=problem, _to_device=lambda weight: torch.from_numpy(weight))
        assert (DeviceSolve._weight(solve) is not None) == is_pruned_on_device
