"""Training runs in float64 by method, compilation, parallelism and place of the masks; a rank when run as a program."""

import copy
import json
import sys
from contextlib import contextmanager, nullcontext
from itertools import product

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.training import Refresh, Sparsifier
from support.training_loop import batch, perceptron

PATTERN = "transposable 2:4"
STEPS = 7
FIXED, STRAIGHT, SR_STE, DECAY = "fixed", "straight-through", "sr-ste decay=0.01", "masked-decay decay=0.01"
GROW, THRESHOLDS = "prune-and-grow until=9", "trainable-thresholds strength=0.01"
METHODS = (FIXED, STRAIGHT, SR_STE, DECAY, GROW, THRESHOLDS)
IN_PLACE = (FIXED, GROW)
STACKS = ("plain", "ddp", "fsdp2")
COMPILED = ("eager", "whole", "blocks")
ORDERS = ("masks first", "stack first")
REFUSED = {
    ("fsdp2", FIXED, True, "masks first"): "was sharded after it was masked in place: create the Sparsifier afterwards",
    ("fsdp2", GROW, True, "masks first"): "was sharded after it was masked in place: create the Sparsifier afterwards",
    ("fsdp2", THRESHOLDS, False, "stack first"): "adds parameters: create the Sparsifier before fully_shard",
    ("ddp", THRESHOLDS, False, "stack first"): "create the Sparsifier before DistributedDataParallel",
}
"""What is refused, by stack, method, place and order."""


def cells(stack):
    """Return all cells of a stack: (method, in place, compiled, order)."""
    places = [(method, False) for method in METHODS] + [(method, True) for method in IN_PLACE]
    return [(*place, *rest) for place, *rest in product(places, COMPILED, ORDERS)]


def train(method, in_place, stack="plain", compiled="eager", order="masks first", backend="aot_eager"):
    """Return losses of all ranks together, masks after each step, final states, and the rows that this rank solved."""
    torch.compiler.reset()
    world = dist.get_world_size() if dist.is_initialized() else 1
    rank = dist.get_rank() if dist.is_initialized() else 0
    model = perceptron().double()
    if order == "stack first":
        run = stacked(model, stack, compiled, backend)
    rows = []

    def solve(scores, pattern):
        rows.append(len(scores))
        return ms.solve(scores, pattern)

    sparsifier = Sparsifier(model, PATTERN, solve, Refresh(every=2, wait=True), method, in_place=in_place)
    # FSDP2 refuses copies of what it has sharded; a copy from before is an average's.
    twin = copy.deepcopy(model) if (stack, compiled, order) == ("fsdp2", "eager", "masks first") else None
    if order == "masks first":
        run = stacked(model, stack, compiled, backend)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    if sparsifier.method.needs_optimizer:
        sparsifier.watch(optimizer)
    losses, masks, held, saved = [], [], [], []
    for step in range(STEPS):
        inputs, targets = (each.double()[rank::world] for each in batch(step))
        optimizer.zero_grad()
        with saved_masks(saved) if compiled == "eager" else nullcontext():
            loss = torch.nn.functional.mse_loss(run(inputs), targets)
        loss.backward()
        optimizer.step()
        sparsifier.step()
        total = loss.detach().clone()
        if world > 1:
            dist.all_reduce(total)
        losses.append(total.item() / world)
        held.append(bytes_held(sparsifier))
        masks.append(sparsifier.masks)
    assert [layer.density for layer in sparsifier.report().layers] == [density(mask) for mask in masks[-1].values()]
    state = sparsifier.plain_state_dict()
    copied = None if twin is None else baked_copy(sparsifier, twin, model)
    sparsifier.bake()
    baked = {name.replace("_orig_mod.", ""): whole(parameter) for name, parameter in model.named_parameters()}
    return {
        "losses": losses,
        "masks": masks,
        "state": state,
        "baked": baked,
        "rows": rows,
        "held": held,
        "saved": saved,
        "copy": copied,
    }


def bytes_held(sparsifier):
    """Return the bytes of masks and of the maskings' buffers on this rank."""
    maskings = [layer.masking for layer in sparsifier._layers]
    tensors = [tensor for masking in maskings for tensor in (masking.mask, *masking.buffers())]
    return sum(tensor.numel() * tensor.itemsize for tensor in tensors)


@torch.no_grad()
def baked_copy(sparsifier, twin, model):
    """Return the state of a copy with whole weights that are those of the sharded model, baked."""
    for own, parameter in zip(twin.parameters(), model.parameters(), strict=True):
        own.copy_(whole(parameter))
    return sparsifier.bake(twin).state_dict()


@contextmanager
def saved_masks(sizes):
    """Append the bytes of masks that a forward pass saves for its backward pass."""
    total = 0

    def pack(tensor):
        nonlocal total
        total += tensor.numel() * tensor.itemsize if tensor.dtype == torch.bool else 0
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield
    sizes.append(total)


def density(mask):
    return float(mask.double().mean())


def whole(parameter):
    return (parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter).detach().clone()


def stacked(model, stack, compiled, backend):
    """Wrap, shard and compile a model; its parameters stay in it."""
    if compiled == "blocks":
        for index in (2, 4):
            model[index] = torch.compile(model[index], backend=backend)
    run = model
    if stack == "fsdp2":
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for layer in model:
            if list(layer.parameters()):
                fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    elif stack == "ddp":
        run = DistributedDataParallel(model)
    return torch.compile(run, backend=backend) if compiled == "whole" else run


def main(rank, world, folder):
    """Train the cells in `cells.json`, and save each result, or the message with which it was refused."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    results = []
    with open(f"{folder}/cells.json") as file:
        wanted = json.load(file)
    for method, in_place, stack, compiled, order, backend in wanted:
        try:
            results.append(train(method, in_place, stack, compiled, order, backend))
        except InputError as error:
            results.append({"refused": str(error)})
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
