"""Groups of a block's weights (same inputs, or same name in all experts), in the order in which the block uses them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from .activations import Activations
from .block_step import BlockStep
from .products import ProductWatcher
from .weights import BlockWeight

Groups = list[list[BlockWeight]]


def groups_of(step: BlockStep, inputs: Activations, weights: Sequence[BlockWeight]) -> Groups:
    """Run the first batch, and group the weights, such as: query, key and value; output; gate and up; down.

    The weights of the same name in all experts are in one group, since experts run in parallel. If the batch uses none
    of the weights of a group, the group is at the end.

    Args:
        step: The block, and its recorded calls.
        inputs: Activations that the previous block returned; for the first block, those that the model passes to it.
        weights: The weights to group.
    """
    products: list[tuple[BlockWeight, torch.Tensor]] = []
    with ProductWatcher(weights, lambda weight, matrix, rows: products.append((weight, rows))):
        step.call(0).run(step.block, inputs.read(0), step.name)
    groups: list[_Group] = []
    for weight, rows in products:
        _add(groups, weight, {_memory_key(rows), _name_key(weight)})
    for weight in weights:
        _add(groups, weight, {_name_key(weight)})
    return [group.weights for group in groups]


@dataclass
class _Group:
    """Weights, and the keys of their inputs and names; a weight with one of these keys belongs to the group."""

    keys: set[object] = field(default_factory=set)
    weights: list[BlockWeight] = field(default_factory=list)


def _add(groups: list[_Group], weight: BlockWeight, keys: set[object]) -> None:
    """Add a weight to the first group that shares a key, else to a new group; do nothing if a group has the weight.

    If a weight is used several times, only the keys of its first use are added. If another weight has the same
    inputs as a later use only, it is then in a later group, and is pruned after the weights that run before it.
    """
    if any(weight in group.weights for group in groups):
        return
    group = next((group for group in groups if group.keys & keys), None)
    if group is None:
        group = _Group()
        groups.append(group)
    group.keys.update(keys)
    group.weights.append(weight)


def _memory_key(rows: torch.Tensor) -> tuple[object, ...]:
    """Identify inputs by their memory; `groups_of` keeps all inputs of the pass, so that no memory is reused."""
    return rows.untyped_storage().data_ptr(), rows.storage_offset(), rows.shape


def _name_key(weight: BlockWeight) -> object:
    """Return the name; for an expert's weight, with `#` in place of numbers, so that all experts share the key."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "#", weight.name) if weight.is_expert else weight.name
