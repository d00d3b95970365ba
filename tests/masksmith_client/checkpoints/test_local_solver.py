"""Tensors solved in this process one after the other: scores are read into memory that earlier ones used."""

import numpy as np
from safetensors.numpy import load_file, save_file

import masksmith as ms
from masksmith_client.cli.app import run

SHAPES = [(16, 32), (64, 64), (8, 8), (48, 96), (32, 16), (96, 48), (8, 64)]


def test_every_tensor_gets_the_mask_of_its_own_scores(tmp_path):
    rng = np.random.default_rng(5)
    weights = {f"layers.{i}.w.weight": rng.standard_normal(shape).astype(np.float32) for i, shape in enumerate(SHAPES)}
    save_file(weights, tmp_path / "model.safetensors")
    assert run(["prune", str(tmp_path / "model.safetensors"), "-p", "2:4", "--local", "-o", str(tmp_path / "out")]) == 0
    pruned = load_file(tmp_path / "out" / "model.safetensors")
    for name, weight in weights.items():
        np.testing.assert_array_equal(pruned[name], weight * ms.solve(np.abs(weight), "2:4").mask)
