"""Files of tensors: errors of the file system name the file."""

import re

import pytest
import torch

from masksmith.model_pruning import read_tensors, write_tensors


def test_errors_name_the_file_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    places = {
        tmp_path / "folder": "Is a directory",
        tmp_path / ("x" * 256): "File name too long",
        tmp_path / "file" / "x": f"File exists ({tmp_path / 'file'})",
    }
    for path, reason in places.items():
        with pytest.raises(OSError, match=re.escape(f"{reason}: '{path}'") + "$"):
            write_tensors(path, {"a": torch.ones(2)})


@pytest.mark.parametrize("name", ["folder", "missing"])
def test_errors_name_the_file_that_cannot_be_read(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=re.escape(str(tmp_path / name))):
        read_tensors(tmp_path / name)
