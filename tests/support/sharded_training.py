"""One training run in float64, plain or sharded by FSDP2; a rank of a process group when it is run as a program."""

import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.training import Refresh, Sparsifier
from support.training_loop import batch, perceptron

PATTERN = "transposable 2:4"
METHODS = ("fixed", "sr-ste", "masked-decay decay=0.01")
STEPS = 7


def shard(model):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model:
        if isinstance(layer, torch.nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def train_in_double(method, order="plain"):
    """Return losses, masks and the plain state, after checking that baking leaves that state."""
    model = perceptron().double()
    if order == "before":
        shard(model)
    refresh = Refresh(every=3, wait=True)
    sparsifier = Sparsifier(model, PATTERN, ms.solve, refresh, method, in_place=method == "fixed")
    if order == "after":
        shard(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    if sparsifier.method.needs_optimizer:
        sparsifier.watch(optimizer)
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        inputs, targets = (each.double() for each in batch(step))
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        sparsifier.step()
        losses.append(loss.item())
    state, masks = sparsifier.plain_state_dict(), sparsifier.masks
    assert [layer.density for layer in sparsifier.report().layers] == [0.5, 0.5]
    sparsifier.bake()
    for name, parameter in model.named_parameters():
        whole = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
        assert torch.equal(whole, state[name]), name
    return {"losses": losses, "masks": masks, "state": state}


def main(rank, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    runs = {(method, "before"): train_in_double(method, "before") for method in METHODS}
    runs |= {(method, "after"): train_in_double(method, "after") for method in METHODS if method != "fixed"}
    try:
        train_in_double("fixed", "after")
    except InputError as error:
        runs["refused"] = str(error)
    torch.save(runs, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
