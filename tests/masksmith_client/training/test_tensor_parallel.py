"""Tensor parallel weights: resumed on two processes from one, and on one from two, as if never interrupted."""

import pytest
import torch
from support.ranks import run_ranks
from support.tensor_parallel import train_part


@pytest.mark.slow
def test_training_resumes_on_another_number_of_processes(tmp_path):
    expected = [train_part(None)]
    for _ in range(2):
        expected.append(train_part(expected[-1]))
    torch.save(expected[0], tmp_path / "start.pt")
    ranks = run_ranks("support.tensor_parallel", 2, tmp_path)
    for state in ranks:
        assert_same(state, expected[1])
        assert state["held"] == expected[1]["held"] // 2, "each holds the masks of its own shards"
        assert "create the Sparsifier after parallelize_module" in state["refused"]
    assert_same(train_part(ranks[0]), expected[2])


def assert_same(state, expected):
    assert state["losses"] == pytest.approx(expected["losses"], abs=1e-9)
    for name, mask in expected["sparsifier"]["masks"].items():
        assert torch.equal(state["sparsifier"]["masks"][name]["bits"], mask["bits"]), name
    for name, weight in expected["model"].items():
        torch.testing.assert_close(state["model"][name], weight, rtol=0, atol=1e-9)
    for name, pruned in expected["sparsifier"]["pruned"].items():
        torch.testing.assert_close(state["sparsifier"]["pruned"][name]["values"], pruned["values"], rtol=0, atol=1e-9)
