"""Gathers the statistics of a block's weights while it runs, without padding."""

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

    The inputs of a weight have one row per token, so in a padded batch the rows of padding are known by position.
    Experts are an exception: they get only the tokens that the router sends them. For them, the module that contains
    them runs again on the tokens that are not padding, and only the products of that run count.

    Args:
        block: The block.
        prefix: Its name in the model.
        weights: The weights to watch.
    """

    def __init__(self, block: torch.nn.Module, prefix: str, weights: Sequence[BlockWeight]) -> None:
        self.statistics = {weight.name: WeightStatistics(weight) for weight in weights}
        self._weights = list(weights)
        self._batch, self._token_mask = 0, cast("Tensor | None", None)
        self._rerunning = False
        self._awaiting_rerun: set[str] = set()
        self._rerun = {weight.name: _child(weight.parameter_name, prefix) for weight in weights if weight.is_expert}
        self._children = {path: block.get_submodule(path) for path in self._rerun.values()}
        self._prefix = prefix

    @contextmanager
    def watching(self, batch: int, token_mask: Tensor | None) -> Iterator[None]:
        """Gather statistics of what runs inside.

        Args:
            batch: Number of the batch.
            token_mask: `[sequences, tokens]`, False at padding; None if nothing is padded.
        """
        self._batch, self._token_mask = batch, token_mask
        children = {} if token_mask is None else self._children
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
        if self._token_mask is None:
            statistics.add(matrix, inputs, self._batch)
        elif weight.name in self._rerun:
            if self._rerunning:
                statistics.add(matrix, inputs, self._batch)
            else:
                self._awaiting_rerun.add(weight.name)
        elif not self._rerunning:
            if len(inputs) != self._token_mask.numel():
                reason = f"its product has {len(inputs)} rows for {self._token_mask.numel()} tokens"
                raise PruningError(f"{reason}, so that those of padding are not known; {ADVICE}", weight.name)
            statistics.add(matrix, inputs[self._token_mask.reshape(-1)], self._batch)

    def _run_again(
        self, path: str, module: torch.nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any
    ) -> None:
        if self._rerunning or self._token_mask is None:
            return
        name, token_mask = f"{self._prefix}.{path}", self._token_mask
        inputs = [*arguments, *keywords.values()]
        if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or inputs[0].shape[:2] != token_mask.shape:
            reason = "it is not called with one row per token alone, so its experts' rows of padding are not known"
            raise PruningError(f"{reason}; {ADVICE}", name)
        self._awaiting_rerun -= {each for each, child in self._rerun.items() if child == path}
        self._rerunning = True
        try:
            tokens = inputs[0][token_mask][None]
            again = module(tokens) if arguments else module(**dict.fromkeys(keywords, tokens))
        finally:
            self._rerunning = False
        if not torch.allclose(tensors_of(again)[0][0], tensors_of(output)[0][token_mask], rtol=1e-2, atol=1e-3):
            raise PruningError(f"its outputs depend on padding; {ADVICE}", name)


def _child(name: str, prefix: str) -> str:
    """Return the name, inside the block, of the block's module that has a weight."""
    return name.removeprefix(f"{prefix}.").partition(".")[0]
