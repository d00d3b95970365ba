"""Magnitudes read from files are exactly those of torch, for each float dtype and wherever pieces end."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from masksmith_client._errors import InputError
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.magnitudes import MagnitudeRows, ThreadBuffers, magnitudes

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


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_those_of_the_whole(tmp_path, dtype):
    values = torch.cat([torch.tensor(SPECIAL), torch.randn(72)]).to(DTYPES[dtype]).reshape(5, 16)
    weight, buffers = stored(tmp_path, values), ThreadBuffers()
    rows = MagnitudeRows(weight, buffers)
    assert (rows.shape, rows.dtype) == ((5, 16), np.float64 if dtype == "F64" else np.float32)
    for first, last in ((0, 5), (0, 1), (2, 5), (4, 5)):
        part = rows.rows(first, last)
        assert part.dtype == rows.dtype
        np.testing.assert_array_equal(part, magnitudes(weight)[first:last])


def test_threads_do_not_share_buffers(tmp_path):
    weight = stored(tmp_path, torch.randn(4, 16))
    rows = MagnitudeRows(weight, ThreadBuffers())
    own = rows.rows(0, 2)
    expected = own.copy()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(rows.rows, 2, 4).result()
    np.testing.assert_array_equal(own, expected)
    np.testing.assert_array_equal(other, magnitudes(weight)[2:])


def test_rows_of_a_file_that_becomes_shorter_are_refused(tmp_path):
    weight = stored(tmp_path, torch.randn(64, 64))
    with weight.file.open("r+b") as file:
        file.truncate(weight.stop - 1)
    rows = MagnitudeRows(weight, ThreadBuffers())
    rows.rows(0, 63)
    with pytest.raises(InputError, match="ended inside 'w'"):
        rows.rows(63, 64)
    weight.file.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        rows.rows(0, 1)
