"""Convolutions sent as flat matrices."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import masksmith as ms
from masksmith_client import InputError, Masks
from masksmith_client.cli.app import run
from masksmith_client.results.apply import apply_masks
from masksmith_client.submission.prepare import prepare
from masksmith_wire.masks import MaskInfo, file_header, pack

KERNEL = np.random.default_rng(3).standard_normal((16, 8, 3, 3), dtype=np.float32)
MASKSMITH = Path(sys.executable).with_name("masksmith")


def test_a_flat_weight_travels_as_a_matrix_and_its_mask_comes_back_in_shape() -> None:
    (weight,) = prepare({"conv": KERNEL, "bias": KERNEL[0, 0, 0]}, "2:4", view="flat").weights
    assert weight.shape == (16, 72)
    assert b"".join(bytes(piece) for piece in weight.read()) == KERNEL.tobytes()
    assert weight.restore(np.ones((16, 72), bool)).shape == KERNEL.shape


def test_only_convolutions_are_flattened() -> None:
    """A stack of matrices `[in, out]` or a transposed convolution would be masked along its outputs."""
    weights = {"conv.weight": KERNEL, "deconv.weight": KERNEL, "experts": np.ones((3, 8, 16), np.float32)}
    prepared = prepare(weights, "2:4", view="flat", layout={"experts": "stack in out"})
    assert {weight.name: (weight.shape, str(weight.layout)) for weight in prepared.weights} == {
        "conv.weight": ((16, 72), "out in"),
        "experts": ((3, 8, 16), "stack in out"),
    }
    assert [(skip.name, skip.reason) for skip in prepared.skipped] == [
        ("deconv.weight", "the layout 'in out kernel kernel' has no flat view")
    ]


def test_the_layout_of_a_flattened_convolution_is_that_of_its_own_dimensions() -> None:
    layout = {"up.weight": "out in kernel kernel"}
    (weight,) = prepare({"up.weight": KERNEL}, "2:4", view="flat", layout=layout).weights
    assert (weight.shape, str(weight.layout)) == ((16, 72), "out in")


@pytest.mark.parametrize("shape", [KERNEL.shape, (16, 72)])
def test_scores_of_a_flattened_convolution_may_have_either_shape(shape: tuple[int, ...]) -> None:
    calibration = {"conv": np.abs(KERNEL).reshape(shape)}
    prepared = prepare({"conv": KERNEL}, "2:4", view="flat", scores="given", calibration=calibration)
    scores = prepared.auxiliary.statistics["conv"].tensor
    assert scores.shape == (16, 72)
    assert b"".join(bytes(piece) for piece in scores.read()) == np.abs(KERNEL).tobytes()
    with pytest.raises(InputError, match="scores of shape"):
        prepare({"conv": KERNEL}, "2:4", scores="given", calibration={"conv": np.abs(KERNEL).reshape(16, 72)})


def flat_masks(folder: Path) -> Masks:
    solution = ms.solve(np.abs(KERNEL).reshape(16, 72), "2:4")
    info = MaskInfo.of((16, 72), solution.pattern, None)
    (folder / "masks").write_bytes(file_header({"conv": info}) + pack(solution.mask).tobytes())
    return Masks.open(folder / "masks")


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_flat_masks_are_verified_with_the_convolution(tmp_path: Path, convert: Any) -> None:
    masks = flat_masks(tmp_path)
    assert masks.verify({"conv": convert(KERNEL)}, prove=True)["conv"]
    assert masks.verify({}, scores={"conv": convert(np.abs(KERNEL))})["conv"]
    with pytest.raises(InputError, match=r"the shape \[16, 72\], and its scores \[8, 16, 3, 3\]"):
        masks.verify({"conv": convert(KERNEL.reshape(8, 16, 3, 3))})


def test_the_command_line_verifies_a_model_with_flat_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"conv": KERNEL}, tmp_path / "model.safetensors")
    apply_masks(flat_masks(tmp_path), tmp_path / "model.safetensors", tmp_path / "pruned.safetensors")
    command = ["verify", str(tmp_path / "pruned.safetensors"), "--masks", str(tmp_path / "masks")]
    assert run(command) == 0
    pruned = load_file(tmp_path / "pruned.safetensors")["conv"]
    (row, column), *_ = np.argwhere(pruned.reshape(16, 72) == 0)
    pruned.reshape(16, 72)[row, column] = 1
    save_file({"conv": pruned}, tmp_path / "pruned.safetensors")
    assert run(command) == 1
    index = [int(each) for each in np.unravel_index(row * 72 + column, KERNEL.shape)]
    assert f"the first at the entry {index}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"), [({"view": "odd"}, "view='odd'"), ({"view": "flat", "scores": "wanda"}, "channels-last")]
)
def test_views_that_cannot_be_are_refused(options: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        prepare({"conv": KERNEL}, "2:4", **options)


def test_the_command_line_solves_and_applies_flat_masks(tmp_path: Path) -> None:
    save_file({"conv": KERNEL}, tmp_path / "model.safetensors")
    solve = [MASKSMITH, "solve", "model.safetensors", "--pattern", "2:4", "--view", "flat", "--local", "--json"]
    done = subprocess.run([*solve, "-o", "masks.safetensors"], cwd=tmp_path, capture_output=True, check=True)
    assert json.loads(done.stdout)["tensors"][0]["shape"] == [16, 72]
    apply = [MASKSMITH, "apply", "masks.safetensors", "model.safetensors", "-o", "pruned.safetensors"]
    subprocess.run(apply, cwd=tmp_path, capture_output=True, check=True)
    pruned = load_file(tmp_path / "pruned.safetensors")["conv"]
    expected = ms.solve(ms.magnitude(KERNEL), "2:4", view="flat").mask
    np.testing.assert_array_equal(pruned, KERNEL * expected)
