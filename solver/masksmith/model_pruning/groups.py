"""Groups of a block's weights with the same inputs, in the order in which they are multiplied."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from .activations import Activations
from .block_step import BlockStep
from .products import ProductWatcher
from .weights import BlockWeight

Groups = list[list[BlockWeight]]


def groups_of(step: BlockStep, inputs: Activations, weights: Sequence[BlockWeight]) -> Groups:
    """Run the first batch, and group the weights: query, key and value, then output, then gate and up, then down.

    All experts of a kind are one group, since they run in parallel. Weights that the batch does not use come last.

    Args:
        step: The block.
        inputs: Activations of the block before.
        weights: The weights to group.
    """
    products: list[tuple[BlockWeight, torch.Tensor]] = []
    with ProductWatcher(weights, lambda weight, matrix, rows: products.append((weight, rows))):
        step.call(0).run(step.block, inputs.read(0), step.name)
    groups: list[tuple[set[object], list[BlockWeight]]] = []
    for weight, rows in products:
        _add(groups, weight, {_memory_of(rows), _kind(weight)})
    for weight in weights:
        _add(groups, weight, {_kind(weight)})
    return [members for _, members in groups]


def _add(groups: list[tuple[set[object], list[BlockWeight]]], weight: BlockWeight, keys: set[object]) -> None:
    """Add a weight to the group that has it, else to the first one that shares a key, else to a new one."""
    if any(weight in members for _, members in groups):
        return
    group = next((each for each in groups if each[0] & keys), None)
    if group is None:
        group = (set(), [])
        groups.append(group)
    group[0].update(keys)
    group[1].append(weight)


def _memory_of(rows: torch.Tensor) -> tuple[object, ...]:
    """Identify inputs by their memory; all are stored until the block has run, so that no memory is reused."""
    return rows.untyped_storage().data_ptr(), rows.storage_offset(), rows.shape


def _kind(weight: BlockWeight) -> object:
    """Return a key that the weights of all experts of one kind share; for other weights, the name."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "#", weight.name) if weight.is_expert else weight.name
