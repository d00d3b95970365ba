"""Two processes train together: the first asks, both apply the same masks at the same step."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.training_loop import perceptron

import masksmith as ms
from masksmith_client.training import Fixed, Sparsifier
from masksmith_client.training.process_group import ProcessGroup

RANK = """
import sys, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from support.training_loop import loss_of, perceptron
import masksmith as ms
from masksmith_client.training import Refresh, Sparsifier, StraightThrough

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
calls = []
def solve(scores, pattern):
    calls.append(pattern)
    if len(calls) == 5:
        raise ConnectionError("gone")
    return ms.solve(scores, pattern)

model = perceptron()
sparsifier = Sparsifier(model, "transposable 2:4", solve, Refresh(every=3), StraightThrough())
parallel = DistributedDataParallel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
applied = []
while not applied or applied[-1] < 6:
    step = len(applied)
    optimizer.zero_grad()
    loss_of(parallel, seed=10 * step + rank).backward()
    optimizer.step()
    sparsifier.step()
    applied.append(len(sparsifier.report().refreshes))
report = sparsifier.report()
torch.save(
    {"weights": model.state_dict(), "masks": sparsifier.masks, "applied": applied, "calls": len(calls),
     "outages": report.outages, "optimal": [record.optimal for record in report.refreshes]},
    f"{folder}/{rank}.pt",
)
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_the_first_process_asks_and_all_apply_the_same_masks(tmp_path):
    tests = str(Path(__file__).parents[2])
    script = f"import sys; sys.path.insert(0, {tests!r})\n{RANK}"
    command = [sys.executable, "-c", script]
    ranks = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], stderr=subprocess.PIPE, text=True) for rank in (0, 1)
    ]
    said = [process.communicate(timeout=400)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], "\n".join(said)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["calls"] >= 8
    assert second["calls"] == 0
    assert first["applied"] == second["applied"]
    assert first["applied"][-1] >= 4
    assert first["outages"] == second["outages"] == 1
    assert first["optimal"] == second["optimal"]
    assert all(first["optimal"])
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name
    for name, mask in first["masks"].items():
        assert torch.equal(mask, second["masks"][name])
        assert ms.verify(mask, "transposable 2:4")


def test_gradients_of_ranks_are_added_entry_by_entry_whatever_their_order_in_memory(monkeypatch):
    """As of a rank that has no gradient of its own, beside one whose convolution is in `channels_last`."""
    model = torch.nn.Sequential(*(torch.nn.Conv2d(4, 4, 2) for _ in range(3)))
    sparsifier = Sparsifier(model, "2:4", ms.solve, None, Fixed())
    [layer] = sparsifier._layers
    own, other = torch.rand(4, 4, 2, 2), torch.rand(4, 4, 2, 2)
    layer.masking.gradient = own.to(memory_format=torch.channels_last)
    group = ProcessGroup(torch.device("cpu"))
    group.is_distributed = True
    # Backends add what is in memory, as a flat list.
    monkeypatch.setattr(
        "torch.distributed.all_reduce", lambda tensor: tensor.as_strided((64,), (1,)).add_(other.view(-1))
    )
    group.sum_gradient(layer)
    assert torch.equal(layer.masking.gradient, own + other)


@pytest.mark.parametrize(("backend", "expected"), [("nccl", "meta"), ("gloo", "cpu")])
def test_ranks_communicate_on_the_device_to_which_a_model_was_moved_in_a_warm_up(monkeypatch, backend, expected):
    """The meta device stands in for a GPU."""
    replies = {"is_initialized": True, "get_world_size": 2, "get_rank": 0, "get_backend": backend}
    for name, reply in replies.items():
        monkeypatch.setattr(f"torch.distributed.{name}", lambda reply=reply: reply)
    model = perceptron()
    schedule = "dense-phases warm_up=10"
    refresher = Sparsifier(model, "2:4", ms.solve, 5, Fixed(), schedule=schedule)._refresher
    model.to("meta")
    refresher._start(refresher._divide(None))
    assert refresher._process_group._device == torch.device(expected)
