"""SR-STE on a small transformer, plain or sharded by FSDP2; a rank of a process group when it is run as a program."""

import math
import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import masksmith as ms
from masksmith_client.training import Refresh, Sparsifier

TOKENS, LENGTH, BATCH, STEPS = 16, 12, 32, 160
PATTERN = "transposable 2:4"


class Model(torch.nn.Module):
    """Two blocks of a transformer that predicts the next token."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(TOKENS, 32)
        self.places = torch.nn.Parameter(torch.randn(LENGTH, 32) * 0.1)
        self.blocks = torch.nn.ModuleList(
            torch.nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True) for _ in range(2)
        )
        self.head = torch.nn.Linear(32, TOKENS)

    def forward(self, tokens):
        values = self.embedding(tokens) + self.places
        causal = torch.nn.Transformer.generate_square_subsequent_mask(LENGTH)
        for block in self.blocks:
            values = block(values, src_mask=causal, is_causal=True)
        return self.head(values)


def tokens_of(step):
    """Sequences in which each token follows from the one two places before it."""
    generator = torch.Generator().manual_seed(step)
    tokens = torch.randint(TOKENS, (BATCH, LENGTH + 1), generator=generator)
    for place in range(2, LENGTH + 1):
        tokens[:, place] = (tokens[:, place - 2] + 1) % TOKENS
    return tokens


def train(world=1, rank=0, *, masked=True):
    """Return the mean loss of the last 20 steps over all ranks' parts of each batch, and the final masks."""
    torch.manual_seed(0)
    model = Model()
    if world > 1:
        mesh = init_device_mesh("cpu", (world,))
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
    sparsifier = Sparsifier(model, PATTERN, ms.solve, Refresh(every=20, wait=True), "sr-ste") if masked else None
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    last = torch.zeros(())
    for step in range(STEPS):
        tokens = tokens_of(step)[rank * BATCH // world : (rank + 1) * BATCH // world]
        loss = torch.nn.functional.cross_entropy(model(tokens[:, :-1])[:, 1:].flatten(0, 1), tokens[:, 2:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if sparsifier is not None:
            sparsifier.step()
        last += loss.detach() / 20 if step >= STEPS - 20 else 0.0
    if world > 1:
        dist.all_reduce(last)
    state = {} if sparsifier is None else sparsifier.plain_state_dict()
    return {"loss": last.item() / world, "state": state, "guess": math.log(TOKENS)}


if __name__ == "__main__":
    rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    torch.save(train(world, rank), f"{folder}/{rank}.pt")
    dist.destroy_process_group()
