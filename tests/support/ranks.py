"""Runs a program once for each rank of a process group."""

import os
import subprocess
import sys
from pathlib import Path

import torch

TESTS = Path(__file__).parents[1]


def run_ranks(program, world, folder):
    """Run a module with the arguments rank, world and folder on each rank; return what the ranks saved."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", program, str(rank), str(world), str(folder)], env=environment, stderr=subprocess.PIPE
        )
        for rank in range(world)
    ]
    errors = [process.communicate(timeout=400)[1].decode() for process in ranks]
    assert [process.returncode for process in ranks] == [0] * world, "\n".join(errors)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world)]
