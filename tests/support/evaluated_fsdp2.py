"""What a sparsifier does with a model of FSDP2, with and without an evaluation before it; a rank when run as a program.

An evaluation leaves whole copies of the weights in the model, which FSDP2 discards later.
"""

import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.training import Refresh, Sparsifier
from support.training_loop import batch, perceptron, train

WEIGHT = "2.weight"


class Adapted(torch.nn.Linear):
    """A linear layer with an adapter, as loralib's."""

    def __init__(self, size):
        super().__init__(size, size)
        self.lora_A = torch.nn.Parameter(torch.full((4, size), 0.1))
        self.lora_B = torch.nn.Parameter(torch.full((size, 4), 0.1))
        self.scaling = 0.5


class Run:
    """A model in training, after two steps."""

    def __init__(self, method="sr-ste", *, evaluated=False, precision=None, **options):
        self.model = perceptron()
        self.model[4] = Adapted(32)
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        policy = MixedPrecisionPolicy(param_dtype=precision)
        fully_shard(self.model[2], mesh=mesh, mp_policy=policy, reshard_after_forward=False)
        fully_shard(self.model, mesh=mesh, mp_policy=policy)
        if evaluated:
            self.evaluate()
        self.sparsifier = Sparsifier(self.model, "2:4", ms.solve, Refresh(every=1, wait=True), method, **options)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        if self.sparsifier.method.needs_optimizer:
            self.sparsifier.watch(self.optimizer)
        self.train(2)

    @torch.no_grad()
    def evaluate(self):
        self.model(batch()[0])

    def train(self, steps):
        train(self.model, self.optimizer, self.sparsifier, steps)

    def weights(self):
        for module in (self.model, self.model[2]):
            module.reshard()
        return {name: parameter.detach().full_tensor() for name, parameter in self.model.named_parameters()}


def baked(evaluate):
    run = Run()
    evaluate(run)
    run.sparsifier.bake()
    return run.weights()


def restored(evaluate):
    run = Run()
    state = run.sparsifier.state_dict(pruned=True)
    run.train(1)
    evaluate(run)
    run.sparsifier.load_state_dict(state)
    return run.weights()


def merged(evaluate):
    run = Run()
    evaluate(run)
    run.sparsifier.merge_adapters()
    return run.weights()


def saved(evaluate):
    run = Run(precision=torch.bfloat16)
    evaluate(run)
    return run.sparsifier.state_dict(pruned=True)["pruned"][WEIGHT]


def refreshed(evaluate):
    run = Run(precision=torch.bfloat16)
    evaluate(run)
    run.sparsifier.refresh_now()
    return run.sparsifier.masks


def read_before_the_backward_pass(evaluate):
    run = Run()
    loss = run.model(batch()[0]).square().mean()
    masks = run.sparsifier.masks if evaluate is Run.evaluate else None
    loss.backward()
    gradients = {name: each.grad for name, each in run.model.named_parameters() if each.grad is not None}
    assert len(gradients) == len(list(perceptron().parameters()))
    return (masks or run.sparsifier.masks) | {f"{name} grad": each.full_tensor() for name, each in gradients.items()}


def stepped(evaluate, method, **options):
    """An evaluation between the backward pass and the optimizer's step, another one before the sparsifier's."""
    run = Run(method, **options)
    run.optimizer.zero_grad()
    run.model(batch()[0]).square().mean().backward()
    evaluate(run)
    run.optimizer.step()
    evaluate(run)
    run.sparsifier.step()
    evaluate(run)
    run.train(1)
    return run.weights()


def created(evaluate):
    return Run("fixed", in_place=True, evaluated=evaluate is Run.evaluate).weights()


def watched(evaluate):
    run = Run()
    evaluate(run)
    run.sparsifier.watch(run.optimizer)
    return run.weights()


ACTIONS = {
    "baked": baked,
    "restored": restored,
    "merged": merged,
    "saved": saved,
    "refreshed": refreshed,
    "read before the backward pass": read_before_the_backward_pass,
    "stepped in place": lambda evaluate: stepped(evaluate, "fixed", in_place=True),
    "stepped with decay": lambda evaluate: stepped(evaluate, "masked-decay decay=0.1"),
    "created": created,
    "watched": watched,
}


def loaded_after_sharding():
    """Load a state into a model that was sharded after it was masked, before the first step."""
    whole, sharded = perceptron(), perceptron()
    saving = Sparsifier(whole, "2:4", ms.solve, None, "sr-ste")
    loading = Sparsifier(sharded, "2:4", ms.solve, None, "sr-ste")
    state = saving.state_dict(pruned=True)
    state["pruned"][WEIGHT]["values"] += 1
    saving.load_state_dict(state)
    fully_shard(sharded, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    loading.load_state_dict(state)
    return [{name: gathered(each) for name, each in model.named_parameters()} for model in (whole, sharded)]


def gathered(parameter):
    return (parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter).detach().clone()


def refused_out_of_reach():
    """A sparsifier of a part of the model does not know the module that was sharded."""
    whole = torch.nn.Sequential(perceptron())
    fully_shard(whole, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    sparsifier = Sparsifier(whole[0], "2:4", ms.solve, None, "sr-ste")
    with torch.no_grad():
        whole(batch()[0])
    try:
        sparsifier.bake()
    except InputError as error:
        refusal = str(error)
    whole.reshard()
    sparsifier.bake()
    assert ms.verify(gathered(whole[0][2].weight) != 0, "2:4")
    return refusal


def refused_lost_write():
    """Values that were written into masked values of a sharded weight."""
    model = perceptron()
    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    sparsifier = Sparsifier(model, "2:4", ms.solve, None, "sr-ste")
    with torch.no_grad():
        model[2].weight.zero_()
    try:
        sparsifier.bake()
    except InputError as error:
        return str(error)


def main(rank, world, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    results = {name: [act(lambda run: None), act(Run.evaluate)] for name, act in ACTIONS.items()}
    results["loaded after sharding"] = loaded_after_sharding()
    refusals = {"out of reach": refused_out_of_reach(), "lost write": refused_lost_write()}
    torch.save({"results": results, "refusals": refusals}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
