"""Files of TensorFlow, Flax and MLX, whose axes differ from those of torch: every door leaves them dense, by name."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from masksmith_client import InputError
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.choice import ChoiceOptions, choose
from masksmith_client.submission.prepare import prepare
from masksmith_service.errors import RequestError
from masksmith_service.jobs.options import FileOptions, parse_file_options
from masksmith_service.jobs.selected_tensors import locate_selected
from masksmith_wire.headers import PREFIX_BYTES, parse_header

NAME = "encoder.layers.0.conv.weight"
FILES = [("tf", (32, 48), "in out"), ("flax", (32, 48), "in out"), ("mlx", (48, 3, 3, 32), "out kernel kernel in")]


@pytest.fixture
def path(tmp_path: Path, file_format: str, shape: tuple[int, ...]) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "model.safetensors"
    save_file({NAME: rng.random(shape, dtype=np.float32)}, path, {"format": file_format})
    return path


@pytest.mark.parametrize(("file_format", "shape", "axes"), FILES)
def test_their_kernels_are_masked_only_with_a_layout(path: Path, file_format: str, axes: str) -> None:
    (tensor,) = choose(Checkpoint.open(path), ChoiceOptions()).tensors.values()
    assert f"the format {file_format!r}" in str(tensor.reason)
    (tensor,) = choose(Checkpoint.open(path), ChoiceOptions(layouts={NAME: axes})).masked_tensors
    assert str(tensor.layout) == axes


@pytest.mark.parametrize(("file_format", "shape", "axes"), FILES)
def test_the_client_sends_their_kernels_only_with_a_layout(path: Path, file_format: str, axes: str) -> None:
    with pytest.raises(InputError, match=f"the format {file_format!r}"):
        prepare(path, "2:4")
    (weight,) = prepare(path, "2:4", layout={NAME: axes}).weights
    assert str(weight.layout) == axes


@pytest.mark.parametrize(("file_format", "shape", "axes"), FILES)
def test_the_service_masks_their_kernels_only_with_a_layout(path: Path, file_format: str, axes: str) -> None:
    with path.open("rb") as file:
        header = parse_header(file.read(int.from_bytes(file.read(PREFIX_BYTES), "little")))
    for layout in ([], [f"{NAME}={axes}"]):
        options = FileOptions(pattern=["2:4"], layout=layout)
        if not layout:
            with pytest.raises(RequestError) as caught:
                locate_selected(options, parse_file_options(options), {"0" * 64: header})
            assert f"the format {file_format!r}" in str(caught.value.extra["skipped"])
            continue
        _, selection = locate_selected(options, parse_file_options(options), {"0" * 64: header})
        assert selection.chosen == [NAME]
