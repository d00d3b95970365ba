"""A file of tensors that was changed, with the same size too, is refused by name."""

import os
import re
import stat

import pytest
import torch

from masksmith import PruningError
from masksmith.model_pruning import check_tensors, read_tensors, write_tensors
from masksmith.model_pruning.call_trees import Encoder

TENSORS = {
    "weight": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
    "mask": torch.tensor([True, False]),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 3),
}
METADATA = {"report": '{"block": 1}'}


@pytest.fixture
def file(tmp_path):
    write_tensors(tmp_path / "block.safetensors", TENSORS, METADATA)
    return tmp_path / "block.safetensors"


def test_tensors_and_metadata_are_read_as_they_were_written(file):
    tensors, metadata = read_tensors(file)
    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    check_tensors(file)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'\\"block\\": 1', b'\\"block\\": 2', "its metadata does not have its digest"),
        (TENSORS["weight"].view(torch.uint8).numpy().tobytes(), bytes(12), "'weight' does not have its digest"),
        (b'"BF16","shape":[2,3]', b'"F16", "shape":[2,3]', "'weight' does not have its digest"),
    ],
)
def test_a_file_that_was_changed_is_named(file, old, new, reason):
    content = file.read_bytes()
    assert content.count(old) == 1
    assert len(old) == len(new)
    file.write_bytes(content.replace(old, new))
    message = re.escape(f"{file} is not as prune wrote it ({reason})")
    with pytest.raises(PruningError, match=message):
        read_tensors(file)
    with pytest.raises(PruningError, match=message):
        check_tensors(file)


def test_file_and_name_are_on_the_disk_when_it_is_written(tmp_path, monkeypatch):
    sync, replace, steps = os.fsync, os.replace, []

    def recorded(descriptor):
        steps.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    monkeypatch.setattr(os, "replace", lambda *paths: steps.append("replaced") or replace(*paths))
    write_tensors(tmp_path / "block.safetensors", TENSORS)
    assert steps == [False, "replaced", True]


UNWRITABLE = {
    "complex128": (lambda: torch.zeros(2, dtype=torch.complex128), "a tensor of torch.complex128"),
    "sparse": (lambda: torch.eye(2).to_sparse(), "a tensor of the layout torch.sparse_coo"),
    "jagged": (
        lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged),
        "a tensor of the layout nested",
    ),
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_a_tensor_that_no_file_can_hold_is_refused(name, tmp_path):
    tensor, kind = UNWRITABLE[name][0](), UNWRITABLE[name][1]
    with pytest.raises(PruningError, match=f"^{kind} cannot be written to a file; load the whole model"):
        write_tensors(tmp_path / "file", {"fine": torch.zeros(2), "tensor": tensor})
    assert not any(tmp_path.iterdir())
    with pytest.raises(PruningError, match=f"layers.0: it is called with {kind}, which cannot be written to a file"):
        Encoder().encode(([{"mask": tensor}],), "layers.0")


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e4m3fn, torch.uint16, torch.float64, torch.int64])
def test_tensors_of_unusual_dtypes_are_written(dtype, tmp_path):
    tensor = torch.arange(4).to(dtype)
    write_tensors(tmp_path / "file", {"": tensor})
    read, _ = read_tensors(tmp_path / "file")
    assert read[""].dtype is dtype
    assert torch.equal(read[""].view(torch.uint8), tensor.view(torch.uint8))
