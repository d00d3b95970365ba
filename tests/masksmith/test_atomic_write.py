import os
import stat

import pytest
import torch
from safetensors.torch import load_file, save_file

from masksmith._atomic_write import replaced_when_complete


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
