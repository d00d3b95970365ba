"""FSDP2: a transformer that converges, and what is refused; masks and losses are in `test_training_matrix.py`."""

import pytest
import torch
from support import sharded_transformer
from support.ranks import run_ranks
from support.training_loop import perceptron

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.training import Sparsifier


@pytest.mark.slow
def test_sr_ste_on_a_transformer_reaches_the_loss_of_one_process(tmp_path):
    expected = sharded_transformer.train()
    assert expected["loss"] < expected["guess"] / 10, "it has learnt the task"
    for result in run_ranks("support.sharded_transformer", 2, tmp_path):
        assert result["loss"] == pytest.approx(expected["loss"], abs=0.05)
        assert ms.verify(result["state"]["blocks.1.linear1.weight"] != 0, sharded_transformer.PATTERN)


def test_an_evaluation_before_it_changes_nothing_that_a_sparsifier_does(tmp_path):
    """FSDP2 leaves whole copies of the weights in the model then, in the dtype of the computation."""
    for saved in run_ranks("support.evaluated_fsdp2", 2, tmp_path):
        for name, (expected, result) in saved["results"].items():
            assert expected.keys() == result.keys()
            for key, value in expected.items():
                assert result[key].dtype == value.dtype, (name, key)
                assert torch.equal(result[key], value), (name, key)
        refusals = saved["refusals"]
        assert "'2.weight' was sharded, and is whole now: call reshard() on the module" in refusals["out of reach"]
        assert "'2.weight' was written to in place" in refusals["lost write"]


def test_fsdp1_is_refused_with_what_to_do():
    class FullyShardedDataParallel(torch.nn.Module):
        """The name by which FSDP1 is recognised; the real class needs an accelerator."""

        def __init__(self, module):
            super().__init__()
            self.module = module

    with pytest.raises(InputError, match=r"FSDP1 keeps all weights in flat pieces: shard with fully_shard"):
        Sparsifier(FullyShardedDataParallel(perceptron()), "2:4", ms.solve)
