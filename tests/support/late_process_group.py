"""Ranks whose process group is initialized after the sparsifier was created, from other seeds; run as a program."""

import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import masksmith as ms
from masksmith_client.training import Refresh, Sparsifier
from support.training_loop import loss_of, perceptron

METHODS = ("prune-and-grow until=99", "masked-decay decay=0.1", "straight-through", "sr-ste")
THREAD = Refresh(every=2)
WAITING = Refresh(every=2, wait=True)


class Run:
    """A model with a sparsifier, created before the process group."""

    def __init__(self, rank, method, refresh):
        self.calls, self.states, self.refresh = [], [], refresh
        self.model = perceptron(seed=rank)
        self.sparsifier = Sparsifier(self.model, "transposable 2:4", self.solve, refresh, method)
        self.own = masks_of(self.sparsifier)
        if refresh is THREAD:
            self.sparsifier._updates.request(self.sparsifier.pattern)  # is pending when the group begins

    def solve(self, scores, pattern):
        self.calls.append(pattern)
        return ms.solve(scores, pattern)

    def train(self, rank):
        parallel = DistributedDataParallel(self.model)
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.5)
        self.sparsifier.watch(optimizer)
        for step in range(7):
            optimizer.zero_grad()
            loss_of(parallel, seed=10 * step + rank).backward()
            optimizer.step()
            self.sparsifier.step()
            if step == 0:
                self.calls.clear()
            state = {name: value.clone() for name, value in self.model.state_dict().items()}
            self.states.append(state | masks_of(self.sparsifier))
        while self.refresh is THREAD and len(self.sparsifier.report().refreshes) < 3:
            self.sparsifier.step()
        self.states.append(masks_of(self.sparsifier))

    def result(self):
        return {"own": self.own, "states": self.states, "calls": len(self.calls)}


def masks_of(sparsifier):
    return {f"{name} mask": mask for name, mask in sparsifier.masks.items()}


def main(rank, world, folder):
    torch.set_num_threads(1)
    cells = [(method, WAITING) for method in METHODS] + [("straight-through", THREAD), ("masked-decay", None)]
    runs = [Run(rank, *cell) for cell in cells]
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    for run in runs:
        run.train(rank)
    torch.save([run.result() for run in runs], f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
    runs[-1].calls.clear()
    runs[-1].sparsifier.refresh_now()
    assert len(runs[-1].calls) == 2, "without a group, each process solves all layers"


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
