from typing import Any

import numpy as np
import pytest
import torch
from blake3 import blake3
from safetensors.numpy import load

from masksmith_client import InputError
from masksmith_client.submission.streamed_tensor import KEY, StreamedTensor
from masksmith_client.submission.tensors import read_mapping


def file_of(weight: StreamedTensor) -> bytes:
    return b"".join(bytes(piece) for piece in weight.pieces())


def one(value: Any) -> StreamedTensor:
    return read_mapping({"w": value})[0]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "bool"])
def test_a_numpy_array_becomes_a_file_that_safetensors_reads(dtype: str) -> None:
    array = np.arange(24).reshape(4, 6).astype(dtype)
    weight = one(array)
    data = file_of(weight)
    assert np.array_equal(load(data)[KEY], array)
    assert weight.file_bytes == len(data)
    assert weight.digest() == blake3(data).hexdigest()


def test_data_begins_at_a_multiple_of_eight() -> None:
    assert len(one(np.ones((3, 5))).header()) % 8 == 0


@pytest.mark.parametrize("array", [np.arange(24.0).reshape(4, 6).T, np.arange(48.0).reshape(4, 12)[:, ::2]])
def test_layout_in_memory_does_not_matter(array: np.ndarray) -> None:
    assert np.array_equal(load(file_of(one(array)))[KEY], array)


def test_big_endian_becomes_little_endian() -> None:
    array = np.arange(6.0).reshape(2, 3).astype(">f4")
    assert np.array_equal(load(file_of(one(array)))[KEY], array)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_torch_and_its_bytes_agree(dtype: torch.dtype) -> None:
    tensor = torch.randn(6, 4).to(dtype).t().requires_grad_()
    weight = one(tensor)
    raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    assert file_of(weight)[len(weight.header()) :] == raw
    assert weight.shape == (4, 6)


def test_torch_and_numpy_of_the_same_values_have_the_same_digest() -> None:
    tensor = torch.randn(8, 8)
    assert one(tensor).digest() == one(tensor.numpy()).digest() == one(torch.nn.Parameter(tensor)).digest()


def test_large_weights_come_in_small_pieces() -> None:
    array = np.ones((512, 2048), np.float32)
    assert max(len(piece) for piece in one(array).pieces()) <= 512 * 1024


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (torch.empty(4, 4, device="meta"), "no data"),
        (torch.eye(4).to_sparse(), "not dense"),
        (torch.ones(4, 4, dtype=torch.complex128), "complex128"),
    ],
    ids=["meta", "sparse", "complex"],
)
def test_tensors_that_cannot_be_read_say_why(tensor: torch.Tensor, reason: str) -> None:
    assert reason in str(one(tensor).unsupported_reason)


@pytest.mark.parametrize("weights", [{"w": [1.0, 2.0]}, {"": np.ones((2, 2))}, {3: np.ones((2, 2))}])
def test_what_is_no_named_tensor_is_refused(weights: Any) -> None:
    with pytest.raises(InputError):
        read_mapping(weights)


def test_masks_come_back_in_the_kind_of_their_weight() -> None:
    mask = np.eye(4, dtype=np.bool_)
    assert torch.equal(one(torch.ones(4, 4)).restore(mask), torch.eye(4, dtype=torch.bool))
    assert one(np.ones((4, 4))).restore(mask) is mask
