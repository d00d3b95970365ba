"""Magnitudes of a shard's rows are exactly those of torch, in the dtype in which a client solves them."""

import numpy as np
import pytest
import torch

from masksmith_wire.dtypes import to_bytes
from masksmith_worker.stages.magnitudes import MagnitudeRows

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
SPECIAL = [0.0, -0.0, -1.5, float("inf"), -float("inf"), float("nan"), 1e-40, -1e-7]


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_rows_are_exact(dtype):
    values = torch.cat([torch.tensor(SPECIAL), torch.randn(72)]).to(DTYPES[dtype]).reshape(5, 16)
    data = to_bytes(values.float().numpy() if dtype == "BF16" else values.numpy(), dtype)
    source = MagnitudeRows(data, dtype, (5, 16))
    expected = values.abs().to(torch.float64 if dtype == "F64" else torch.float32).numpy()
    assert (source.shape, source.dtype) == ((5, 16), expected.dtype)
    for first, last in ((1, 2), (0, 5), (3, 5)):
        rows = source.rows(first, last)
        assert rows.dtype == expected.dtype
        np.testing.assert_array_equal(rows, expected[first:last])
