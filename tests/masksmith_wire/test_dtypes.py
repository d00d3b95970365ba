import numpy as np
import pytest
import torch

from masksmith.layouts import FLOAT_DTYPES, ITEM_BYTES
from masksmith_wire.dtypes import NUMPY_DTYPES, to_numpy
from masksmith_wire.headers import DTYPE_BITS


def test_every_bfloat16_widens_as_torch_widens_it():
    bits = np.arange(2**16, dtype="<u2").reshape(256, 256)
    found = to_numpy(bits.tobytes(), "BF16", (256, 256))
    expected = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).float().numpy()
    assert found.dtype == np.float32
    assert (found.view(np.uint32) == expected.view(np.uint32)).all()


@pytest.mark.parametrize("dtype", [name for name in NUMPY_DTYPES if name != "BF16"])
def test_other_dtypes_are_views(dtype):
    data = np.arange(6).astype(NUMPY_DTYPES[dtype]).tobytes()
    found = to_numpy(data, dtype, (2, 3))
    assert found.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found.dtype == np.dtype(NUMPY_DTYPES[dtype])


def test_the_tables_agree():
    assert NUMPY_DTYPES.keys() == ITEM_BYTES.keys() >= FLOAT_DTYPES
    assert all(ITEM_BYTES[name] * 8 == DTYPE_BITS[name] for name in ITEM_BYTES)
    assert not any(name in NUMPY_DTYPES for name in DTYPE_BITS if name.startswith("F8"))
