"""`previous=`: which job, reference or file is compared with."""

import numpy as np
import pytest

from masksmith_client import InputError, Masks
from masksmith_client.submission.prepare import prepare
from masksmith_client.submission.previous_masks import parse_previous, previous_reference
from masksmith_wire.masks import MaskInfo, file_header, pack


@pytest.fixture
def path(tmp_path):
    mask = np.tile([True, False, True, False], (4, 1))
    path = tmp_path / "masks.safetensors"
    path.write_bytes(file_header({"w": MaskInfo(shape=[4, 4], pattern="2:4")}) + pack(mask).tobytes())
    return path


def test_masks_opened_from_a_file_are_that_file(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    masks = Masks.open(path.name)
    monkeypatch.chdir("/")
    assert parse_previous(masks) == (None, path)
    assert previous_reference(masks) == str(path)


def test_masks_whose_file_was_replaced_are_refused(path):
    masks = Masks.open(path)
    masks.save(path)
    closed = Masks.open(path)
    closed.close()
    for each in (masks, closed):
        for parse in (parse_previous, previous_reference):
            with pytest.raises(InputError, match="closed, or their file was replaced: pass the path"):
                parse(each)


@pytest.mark.parametrize("name", ["z" * 300, "x/" * 3000, "a\0b"], ids=["name", "path", "zero byte"])
def test_a_name_that_no_file_can_have_is_refused_like_a_missing_file(name):
    weights = {"w": np.ones((4, 8), np.float32)}
    for read in (
        lambda: parse_previous(name),
        lambda: prepare(name, "2:4"),
        lambda: prepare(weights, "2:4", scores="wanda", calibration=name),
    ):
        with pytest.raises(InputError):
            read()
