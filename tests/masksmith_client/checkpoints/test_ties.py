"""How tied tensors of a checkpoint are found."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from masksmith_client.checkpoints import ties
from masksmith_client.checkpoints.checkpoint import Checkpoint


def test_tensors_with_equal_samples_are_read_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matrices = {f"{number}.weight": np.zeros((16, 16), np.float32) for number in range(12)}
    for number in range(0, 12, 2):
        matrices[f"{number}.weight"][4, 4] = 1 + number // 4  # Not among the bytes that are compared first.
    save_file(matrices, tmp_path / "model.safetensors")
    pieces, names = ties.Tensor.pieces, []
    monkeypatch.setattr(ties.Tensor, "pieces", lambda tensor: names.append(tensor.name) or pieces(tensor))
    tied = Checkpoint.open(tmp_path).ties
    assert tied == {"2.weight": "0.weight", "6.weight": "4.weight", "10.weight": "8.weight"}
    assert len(names) == len(set(names))
