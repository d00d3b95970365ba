"""A part of a training run in float64, plain or tensor parallel, from a saved state to the next."""

import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.training import Refresh, Sparsifier
from support.training_loop import loss_of_double, perceptron

PATTERN = "transposable 2:4"
STEPS = 3


def train_part(saved, *, is_parallel=False):
    """Train `STEPS` steps from a saved state, or from the beginning if it is None; return the new state."""
    model = perceptron().double()
    if saved is not None:
        model.load_state_dict(saved["model"])
    if is_parallel:
        parallelize(model)
    sparsifier = Sparsifier(model, PATTERN, ms.solve, Refresh(every=2, wait=True), "sr-ste")
    if saved is not None:
        sparsifier.load_state_dict(saved["sparsifier"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    begin, losses = sparsifier.report().step, []
    for step in range(begin, begin + STEPS):
        optimizer.zero_grad()
        loss = loss_of_double(model, step)
        loss.backward()
        optimizer.step()
        sparsifier.step()
        losses.append(loss.item())
    state = {"model": sparsifier.plain_state_dict(), "sparsifier": sparsifier.state_dict(pruned=True), "losses": losses}
    masks = [layer.masking.mask for layer in sparsifier._layers]
    state["held"] = sum(mask.numel() * mask.itemsize for mask in masks)
    assert [layer.density for layer in sparsifier.report().layers] == [0.5, 0.5]
    sparsifier.bake()
    return state


def parallelize(model):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    parallelize_module(model, mesh, {"2": ColwiseParallel(), "4": RowwiseParallel()})


if __name__ == "__main__":
    rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    start = torch.load(f"{folder}/start.pt", weights_only=True)
    state = train_part(start, is_parallel=True)
    late = perceptron()
    Sparsifier(late, PATTERN, ms.solve, None)
    try:
        parallelize(late)
    except InputError as error:
        state["refused"] = str(error)
    torch.save(state, f"{folder}/{rank}.pt")
    dist.destroy_process_group()
