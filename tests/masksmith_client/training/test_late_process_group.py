"""Ranks are coupled from the first step on if their process group is initialized after the sparsifier was created."""

import os
import subprocess
import sys

import pytest
import torch
from support.ranks import TESTS, run_ranks


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_ranks_that_begin_with_other_weights_and_masks_train_the_same_model(tmp_path):
    for first, second in zip(*run_ranks("support.late_process_group", 2, tmp_path), strict=True):
        assert not torch.equal(first["own"]["2.weight mask"], second["own"]["2.weight mask"])
        for state, other in zip(first["states"], second["states"], strict=True):
            assert_same(state, other)
        assert second["calls"] == 0, "rank 0 solves"


@pytest.mark.slow
def test_ranks_of_lightning_train_the_same_model(tmp_path):
    command = [sys.executable, "-m", "support.lightning_ranks", str(tmp_path)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(TESTS)}, check=True, timeout=400, capture_output=True)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, values in first.items():
        assert_same(values, second[name])
