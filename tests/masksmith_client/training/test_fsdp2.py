"""FSDP2 on one and two processes, sharded before and after masking: the masks and losses of a single process."""

import pytest
import torch
from support import sharded_transformer
from support.ranks import run_ranks
from support.sharded_training import METHODS, train_in_double
from support.training_loop import perceptron

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.training import Sparsifier


@pytest.mark.parametrize("world", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_sharded_training_has_the_masks_and_losses_of_one_process(world, tmp_path):
    results = run_ranks("support.sharded_training", world, tmp_path)
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


@pytest.mark.slow
def test_sr_ste_on_a_transformer_reaches_the_loss_of_one_process(tmp_path):
    expected = sharded_transformer.train()
    assert expected["loss"] < expected["guess"] / 10, "it has learnt the task"
    for result in run_ranks("support.sharded_transformer", 2, tmp_path):
        assert result["loss"] == pytest.approx(expected["loss"], abs=0.05)
        assert ms.verify(result["state"]["blocks.1.linear1.weight"] != 0, sharded_transformer.PATTERN)


def test_fsdp1_is_refused_with_what_to_do():
    class FullyShardedDataParallel(torch.nn.Module):
        """The name by which FSDP1 is recognised; the real class needs an accelerator."""

        def __init__(self, module):
            super().__init__()
            self.module = module

    with pytest.raises(InputError, match=r"FSDP1 keeps all weights in flat pieces: shard with fully_shard"):
        Sparsifier(FullyShardedDataParallel(perceptron()), "2:4", ms.solve)
