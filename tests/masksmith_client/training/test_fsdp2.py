"""FSDP2 on one and two processes, sharded before and after masking: the masks and losses of a single process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.sharded_training import METHODS, train_in_double
from support.training_loop import perceptron

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.training import Sparsifier

TESTS = Path(__file__).parents[2]


@pytest.mark.parametrize("world", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_sharded_training_has_the_masks_and_losses_of_one_process(world, tmp_path):
    command = [sys.executable, "-m", "support.sharded_training"]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    ranks = [
        subprocess.Popen([*command, str(rank), str(world), str(tmp_path)], env=environment, stderr=subprocess.PIPE)
        for rank in range(world)
    ]
    errors = [process.communicate(timeout=240)[1].decode() for process in ranks]
    assert [process.returncode for process in ranks] == [0] * world, "\n".join(errors)
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(world)]
    for method in METHODS:
        expected = train_in_double(method)
        for order in ("before", "after") if method != "fixed" else ("before",):
            for result in (each[method, order] for each in results):
                assert result["losses"] == pytest.approx(expected["losses"], abs=1e-9)
                for name, mask in expected["masks"].items():
                    assert torch.equal(result["masks"][name], mask), (method, order, name)
                for name, weight in expected["state"].items():
                    torch.testing.assert_close(result["state"][name], weight)
    message = "'2.weight' was sharded after it was masked in place: create the Sparsifier afterwards"
    assert [result["refused"] for result in results] == [message] * world


def test_fsdp1_is_refused_with_what_to_do():
    class FullyShardedDataParallel(torch.nn.Module):
        """The name by which FSDP1 is recognised; the real class needs an accelerator."""

        def __init__(self, module):
            super().__init__()
            self.module = module

    with pytest.raises(InputError, match=r"FSDP1 keeps all weights in flat pieces: shard with fully_shard"):
        Sparsifier(FullyShardedDataParallel(perceptron()), "2:4", ms.solve)
