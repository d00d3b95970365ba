"""Magnitudes read from files are exactly those of torch, for each float dtype and wherever pieces end."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from masksmith_client._errors import InputError
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.magnitudes import magnitudes

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
SPECIAL = [0.0, -0.0, -1.5, float("inf"), -float("inf"), float("nan"), 1e-40, -1e-7]


def stored(tmp_path, values):
    save_file({"w": values}, tmp_path / "model.safetensors")
    return Checkpoint.open(tmp_path / "model.safetensors").weight("w")


@pytest.mark.parametrize("piece_bytes", [3, 4096, 2**20])
@pytest.mark.parametrize("dtype", DTYPES)
def test_they_are_exact(tmp_path, monkeypatch, dtype, piece_bytes):
    monkeypatch.setattr("masksmith_client.checkpoints.tensors.PIECE_BYTES", piece_bytes)
    values = torch.cat([torch.tensor(SPECIAL), torch.randn(40)]).to(DTYPES[dtype]).reshape(3, 16)
    result = magnitudes(stored(tmp_path, values))
    expected = values.abs().float() if dtype == "BF16" else values.abs()
    assert result.dtype == expected.numpy().dtype
    np.testing.assert_array_equal(result, expected.numpy())
    assert not np.signbit(result[~np.isnan(result)]).any()


def test_every_bfloat16(tmp_path):
    bits = torch.arange(-(2**15), 2**15).to(torch.int16).reshape(256, 256)
    values = bits.view(torch.bfloat16)
    np.testing.assert_array_equal(magnitudes(stored(tmp_path, values)), values.float().abs().numpy())


def test_a_file_that_becomes_shorter_is_refused(tmp_path):
    weight = stored(tmp_path, torch.randn(64, 64))
    with weight.file.open("r+b") as file:
        file.truncate(weight.stop - 1)
    with pytest.raises(InputError, match="ended inside 'w'"):
        magnitudes(weight)
