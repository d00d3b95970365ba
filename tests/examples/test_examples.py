"""The examples run as their first lines say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import masksmith as ms

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    environment = os.environ | {"MASKSMITH_WORKER_COMPILE_LATER": "false"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_demo_proves_and_verifies_real_layers(tmp_path: Path) -> None:
    printed = run("demo.py", "--out", str(tmp_path))
    assert "36 layers, 10.6 million weights: every mask proved optimal" in printed
    assert "all masks obey transposable 8:16" in printed
    assert (tmp_path / "mask.png").read_bytes().startswith(b"\x89PNG")
    assert len(load_file(tmp_path / "masks.safetensors")) == 36


def test_a_checkpoint_is_pruned(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = {
        "layer.weight": rng.standard_normal((64, 80), dtype=np.float32),
        "layer.bias": rng.standard_normal(64, dtype=np.float32),
        "embedding.weight": rng.standard_normal((40, 16), dtype=np.float32),
        "embed_tokens.weight": rng.standard_normal((40, 16), dtype=np.float32),
    }
    save_file(weights, tmp_path / "model.safetensors")
    printed = run("prune_checkpoint.py", str(tmp_path / "model.safetensors"), str(tmp_path / "pruned.safetensors"))
    assert "1 of 4 tensors pruned to transposable 8:16" in printed
    pruned = load_file(tmp_path / "pruned.safetensors")
    assert ms.verify(pruned["layer.weight"] != 0, "transposable 8:16")
    np.testing.assert_array_equal(pruned["layer.bias"], weights["layer.bias"])
    np.testing.assert_array_equal(pruned["embedding.weight"], weights["embedding.weight"])
    np.testing.assert_array_equal(pruned["embed_tokens.weight"], weights["embed_tokens.weight"])


@pytest.mark.slow
def test_a_transformer_is_trained_while_a_service_refreshes_its_masks(tmp_path: Path) -> None:
    printed = run("train_with_service.py", "--steps", "45")
    assert "every mask proved optimal, by two solvers" in printed
    assert "16 masked layer(s)" in printed
    assert int(re.search(r"(\d+) refresh\(es\)", printed)[1]) >= 3


@pytest.mark.slow
def test_the_cost_of_refreshes_is_written_down(tmp_path: Path) -> None:
    # How large it is on a busy machine is not this test's business, so the exit code is not looked at.
    page = tmp_path / "refresh.md"
    command = [sys.executable, str(EXAMPLES / "train_with_service.py"), "--measure", "1", "--out", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert "every mask proved optimal, by two solvers" in done.stdout, done.stderr
    assert re.search(r"median of 1 pairs \| [+-][\d.]+% \|", page.read_text())
