"""Prunes a Llama-like model block by block with a peer's function of one weight and the Gram matrix of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

Tensor = torch.Tensor
PruneWeight = Callable[[Tensor, Tensor], Tensor]
"""Takes `[out, in]` and `X^T X`, returns the pruned and updated weight."""


@torch.no_grad()
def prune_block_by_block(
    model: torch.nn.Module,
    blocks: Sequence[torch.nn.Module],
    batches: Sequence[Mapping[str, Tensor]],
    prune_weight: PruneWeight,
) -> None:
    """Prune all linear layers of the blocks in place, each block on the outputs of the pruned ones before it.

    The blocks take hidden states first and return them, with keyword arguments that are the same for all blocks.
    """
    calls = [_first_call(model, blocks[0], batch) for batch in batches]
    for block in blocks:
        layers = [module for module in block.modules() if isinstance(module, torch.nn.Linear)]
        with _gram_matrices(layers) as grams:
            for hidden, options in calls:
                block(hidden, **options)
        for layer in layers:
            layer.weight.copy_(prune_weight(layer.weight, grams[layer]))
        calls = [(_hidden(block(hidden, **options)), options) for hidden, options in calls]


class _StopForwardPass(Exception):
    """Ends a forward pass at the first block."""


def _first_call(
    model: torch.nn.Module, block: torch.nn.Module, batch: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Any]]:
    recorded: list[tuple[Tensor, dict[str, Any]]] = []

    def record(module: torch.nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        recorded.append((arguments[0], options))
        raise _StopForwardPass

    hook = block.register_forward_pre_hook(record, with_kwargs=True)
    try:
        model(**batch, use_cache=False)
    except _StopForwardPass:
        pass
    finally:
        hook.remove()
    return recorded[0]


@contextmanager
def _gram_matrices(layers: Sequence[torch.nn.Linear]) -> Iterator[dict[torch.nn.Module, Tensor]]:
    grams: dict[torch.nn.Module, Tensor] = {}

    def add(module: torch.nn.Module, arguments: tuple[Tensor, ...]) -> None:
        rows = arguments[0].reshape(-1, arguments[0].shape[-1])
        product = (rows.T @ rows).double()
        grams[module] = grams[module] + product if module in grams else product

    hooks = [layer.register_forward_pre_hook(add) for layer in layers]
    try:
        yield grams
    finally:
        for hook in hooks:
            hook.remove()


def _hidden(output: Any) -> Tensor:
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden
