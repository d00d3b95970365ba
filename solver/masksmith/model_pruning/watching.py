"""Gathers the statistics of a block's weights while it runs; padding is left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch

from masksmith._errors import PruningError

from .calls import tensors_of
from .products import ProductWatcher
from .statistics import WeightStatistics
from .weights import BlockWeight

Tensor = torch.Tensor
ADVICE = "calibrate without padding"


class BlockWatcher:
    """Watches the weights of a block.

    Each product of a weight gets one row per token, except in experts, which get only the tokens that a router sends
    them. In a padded batch, padding rows of the first kind are known by position. For experts, the module that has
    them runs again on the tokens that are not padding, and only its products in that run count.

    Args:
        block: The block.
        prefix: Its name in the model.
        weights: The weights to watch.
    """

    def __init__(self, block: torch.nn.Module, prefix: str, weights: Sequence[BlockWeight]) -> None:
        self.statistics = {weight.name: WeightStatistics(weight) for weight in weights}
        self._weights = list(weights)
        self._batch, self._kept = 0, cast("Tensor | None", None)
        self._rerunning = False
        self._awaiting_rerun: set[str] = set()
        self._rerun = {weight.name: _child(weight.name, prefix) for weight in weights if weight.is_expert}
        self._children = {path: block.get_submodule(path) for path in self._rerun.values()}
        self._prefix = prefix

    @contextmanager
    def watching(self, batch: int, kept: Tensor | None) -> Iterator[None]:
        """Gather statistics of what runs inside.

        Args:
            batch: Number of the batch.
            kept: `[sequences, tokens]`, False at padding; None if nothing is padded.
        """
        self._batch, self._kept = batch, kept
        children = {} if kept is None else self._children
        hooks = [
            child.register_forward_hook(lambda *call, path=path: self._run_again(path, *call), with_kwargs=True)
            for path, child in children.items()
        ]
        try:
            with ProductWatcher(self._weights, self._add):
                yield
            if self._awaiting_rerun:
                raise PruningError(f"its padding rows cannot be identified; {ADVICE}", min(self._awaiting_rerun))
        finally:
            for hook in hooks:
                hook.remove()

    def _add(self, weight: BlockWeight, matrix: int, inputs: Tensor) -> None:
        statistics = self.statistics[weight.name]
        if self._kept is None:
            statistics.add(matrix, inputs, self._batch)
        elif weight.name in self._rerun:
            if self._rerunning:
                statistics.add(matrix, inputs, self._batch)
            else:
                self._awaiting_rerun.add(weight.name)
        elif not self._rerunning:
            if len(inputs) != self._kept.numel():
                reason = f"its product has {len(inputs)} rows for {self._kept.numel()} tokens"
                raise PruningError(f"{reason}, so that those of padding are not known; {ADVICE}", weight.name)
            statistics.add(matrix, inputs[self._kept.reshape(-1)], self._batch)

    def _run_again(
        self, path: str, module: torch.nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any
    ) -> None:
        if self._rerunning or self._kept is None:
            return
        name, kept = f"{self._prefix}.{path}", self._kept
        inputs = [*arguments, *keywords.values()]
        if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or inputs[0].shape[:2] != kept.shape:
            reason = "it is not called with one row per token alone, so its experts' rows of padding are not known"
            raise PruningError(f"{reason}; {ADVICE}", name)
        self._awaiting_rerun -= {each for each, child in self._rerun.items() if child == path}
        self._rerunning = True
        try:
            tokens = inputs[0][kept][None]
            again = module(tokens) if arguments else module(**dict.fromkeys(keywords, tokens))
        finally:
            self._rerunning = False
        if not torch.allclose(tensors_of(again)[0][0], tensors_of(output)[0][kept], rtol=1e-2, atol=1e-3):
            raise PruningError(f"its outputs depend on padding; {ADVICE}", name)


def _child(name: str, prefix: str) -> str:
    """Return the name, inside the block, of the block's module that has a weight."""
    return name.removeprefix(f"{prefix}.").partition(".")[0]
