"""`-o -`: the bytes of the file on standard output and nothing else."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save_file

from masksmith_client import Masks
from masksmith_client.cli.app import run

NAME = "layers.0.w.weight"


def masksmith(*arguments: object) -> "subprocess.CompletedProcess[bytes]":
    code = "import sys; from masksmith_client.cli.app import run; sys.exit(run(sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, check=False)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    weight = np.random.default_rng(0).standard_normal((8, 16)).astype(np.float32)
    save_file({NAME: weight}, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_masks_and_weights_go_to_standard_output(model: Path, tmp_path: Path) -> None:
    masks, weights = tmp_path / "masks", tmp_path / "weights"
    solve = ["solve", model, "-p", "2:4", "--local", "-o"]
    assert run([*map(str, solve), str(masks)]) == 0
    solved = masksmith(*solve, "-")
    assert solved.returncode == 0
    assert solved.stdout == masks.read_bytes()
    assert b"1 tensor(s)" in solved.stderr
    assert b"-> -" in solved.stderr
    assert run(["apply", str(masks), str(model), "-o", str(weights)]) == 0
    applied = masksmith("apply", masks, model, "-o", "-")
    assert (applied.returncode, applied.stdout) == (0, weights.read_bytes())
    assert b"1 of 1 tensor(s) masked" in applied.stderr
    assert np.array_equal(load(applied.stdout)[NAME] != 0, Masks.open(masks)[NAME])


@pytest.mark.torch
def test_updated_weights_go_to_standard_output(model: Path, tmp_path: Path) -> None:
    inputs = np.random.default_rng(1).standard_normal((50, 16)) @ np.tri(16)
    save_file({f"{NAME}/gram": inputs.T @ inputs}, tmp_path / "statistics")
    options = ["--update", "reconstruct", "--calibration", tmp_path / "statistics", "--weights-out", "-"]
    solved = masksmith("solve", model, "-p", "2:4", "--local", "-o", tmp_path / "masks", *options)
    assert solved.returncode == 0
    assert np.array_equal(load(solved.stdout)[NAME] != 0, Masks.open(tmp_path / "masks")[NAME])


def test_json_and_an_error_leave_standard_output_empty(model: Path, tmp_path: Path) -> None:
    refused = masksmith("solve", model, "-p", "2:4", "--local", "-o", "-", "--json")
    assert (refused.returncode, refused.stdout) == (2, b"")
    assert b"--json and -o -" in refused.stderr
    failed = masksmith("apply", tmp_path / "missing", model, "-o", "-")
    assert (failed.returncode, failed.stdout) == (2, b"")
