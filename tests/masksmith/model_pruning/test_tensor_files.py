"""A file of tensors that was changed, with the same size too, is refused by name."""

import os
import re
import stat

import pytest
import torch

from masksmith import PruningError
from masksmith.model_pruning import check_tensors, read_tensors, write_tensors

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
