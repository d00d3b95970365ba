import os
import stat

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from masksmith._atomic_write import replaced_when_complete
from masksmith.calibration.statistics import Calibration, LayerStatistics


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path, mode):
    target = tmp_path / "statistics.safetensors"
    target.write_bytes(b"old")
    target.chmod(mode)
    with replaced_when_complete(target) as temporary:
        save_file({"w": torch.arange(3)}, temporary)
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
    assert stat.S_IMODE(target.stat().st_mode) == mode
    assert load_file(target)["w"].tolist() == [0, 1, 2]
    assert os.listdir(tmp_path) == ["statistics.safetensors"]


def test_a_file_stays_as_it_was_after_an_error(tmp_path):
    target = tmp_path / "statistics.safetensors"
    target.write_bytes(b"old")

    def fail():
        with replaced_when_complete(target) as temporary:
            temporary.write_bytes(b"new")
            raise ValueError("interrupted")

    with pytest.raises(ValueError, match="interrupted"):
        fail()
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["statistics.safetensors"]


def test_a_missing_folder_is_an_error_of_the_system(tmp_path):
    target = tmp_path / "missing" / "statistics.safetensors"
    layers = {"fc": LayerStatistics(4, norms=np.ones(8))}
    with pytest.raises(FileNotFoundError, match="No such file or directory") as caught:
        Calibration(layers).save(target)
    assert caught.value.filename == str(target)
