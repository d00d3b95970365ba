"""Convolutions sent as flat matrices."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.submission.prepare import prepare

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
