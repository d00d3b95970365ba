"""Updated weights in a file are read at each look-up."""

import io
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from masksmith_client.results.updated_weights import UpdatedWeights


class SharedFile(io.FileIO):
    """A file that another thread moves to its beginning between each seek and the read after it."""

    is_shared = False

    def read(self, size: int | None = -1) -> bytes:
        if self.is_shared:
            self.seek(0)
        return super().read(-1 if size is None else size)


def test_look_ups_of_several_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    tensors = {name: np.full((4, 8), number, np.float32) for number, name in enumerate("ab")}
    save_file(tensors, tmp_path / "weights")
    file = SharedFile(tmp_path / "weights")
    weights = UpdatedWeights(file)  # type: ignore[arg-type]
    file.is_shared = True
    for name, tensor in tensors.items():
        assert np.array_equal(weights[name], tensor)
