"""A small model, its data, and a loop to train it in."""

import torch

import masksmith as ms
from masksmith_client.training import Refresh

WAITING = Refresh(every=4, wait=True)
"""Refreshes that are applied at once, so that tests are reproducible."""


def perceptron(width=32, seed=0):
    """Return a model of four linear layers, of which the two in the middle are masked by default."""
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(8, width), torch.nn.Tanh(), torch.nn.Linear(width, width), torch.nn.Tanh(),
        torch.nn.Linear(width, width), torch.nn.Tanh(), torch.nn.Linear(width, 4),
    )  # fmt: skip


def batch(seed=0, count=64):
    """Return inputs and targets."""
    inputs = torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))
    return inputs, torch.sin(2 * inputs[:, :4])


def loss_of(model, seed=0):
    inputs, targets = batch(seed)
    return torch.nn.functional.mse_loss(model(inputs), targets)


def train(model, optimizer, sparsifier, steps, after=lambda step: None):
    """Train; return the last loss."""
    for step in range(steps):
        optimizer.zero_grad()
        loss = loss_of(model, step)
        loss.backward()
        optimizer.step()
        sparsifier.step()
        after(step)
    return loss.item()


def obeys(sparsifier, pattern):
    return all(ms.verify(mask, pattern) for mask in sparsifier.masks.values())


def loss_of_double(model, seed=0):
    inputs, targets = (each.double() for each in batch(seed))
    return torch.nn.functional.mse_loss(model(inputs), targets)
