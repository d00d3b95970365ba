"""Gathers the statistics of a block's weights while the block runs, without the rows of padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from masksmith._errors import PruningError
from masksmith.calibration.gram import product_of
from masksmith.layouts import without_wrappers

from .calls import Tensors, tensors_of
from .products import ProductWatcher
from .statistics import WeightStatistics
from .token_orders import ADVICE, TokenOrders
from .weights import BlockWeight

Tensor = torch.Tensor


class BlockWatcher:
    """Watches the weights of a block.

    The inputs of a weight have one row per token, so in a padded batch the rows of padding are known by position, once
    `find_token_orders` has found the order of the rows.
    Experts are an exception: they get only the tokens that the router sends them. In a padded batch, the block's
    child that contains the experts therefore runs a second time, on the tokens that are not padding. Inputs of experts
    are then gathered in the second run only, and inputs of other weights in the first run only. Experts that belong to
    the block itself, and to none of its children, are refused in a padded batch.

    Args:
        block: The block.
        prefix: Name of the block in the model.
        weights: The weights to watch.

    Attributes:
        statistics: The statistics of each weight, by name.
    """

    def __init__(self, block: torch.nn.Module, prefix: str, weights: Sequence[BlockWeight]) -> None:
        self.statistics = {weight.name: WeightStatistics(weight) for weight in weights}
        self._weights = list(weights)
        self._batch = 0
        self._token_mask: Tensor | None = None
        self._is_second_run = False
        self._awaiting_second_run: set[str] = set()
        self._child_of_expert = {
            weight.name: _child(weight.parameter_name, prefix) for weight in weights if weight.is_expert
        }
        plain_block = without_wrappers(block)
        children = dict.fromkeys(child for child in self._child_of_expert.values() if child is not None)
        self._children = {child: plain_block.get_submodule(child) for child in children}
        self._prefix = prefix
        self._last_product = _LastProduct()
        self._token_orders = TokenOrders([weight for weight in weights if not weight.is_expert])

    def find_token_orders(self, run: Callable[[Tensors], object], inputs: Tensors, token_mask: Tensor) -> None:
        """Find the order of the rows of each weight's products; see `TokenOrders.find`."""
        self._token_orders.find(run, inputs, token_mask)

    @contextmanager
    def watching(self, batch: int, token_mask: Tensor | None) -> Iterator[None]:
        """Gather statistics of the products that run within the context.

        Args:
            batch: Number of the batch.
            token_mask: `[sequences, tokens]`, False at padding; None if nothing is padded.

        Raises:
            PruningError: If an input is not finite, the rows of padding are not known, or outputs depend on padding.
        """
        self._batch, self._token_mask = batch, token_mask
        children = {} if token_mask is None else self._children
        hooks = [
            module.register_forward_hook(partial(self._run_again, child), with_kwargs=True)
            for child, module in children.items()
        ]
        try:
            with ProductWatcher(self._weights, self._add, self._add_unfollowed):
                yield
            if self._awaiting_second_run:
                name = min(self._awaiting_second_run)
                raise PruningError(f"its rows of padding cannot be identified; {ADVICE}", name)
        finally:
            self._last_product = _LastProduct()
            for hook in hooks:
                hook.remove()

    def _add(self, weight: BlockWeight, matrix: int, inputs: Tensor) -> None:
        """Add the inputs `[tokens, in]` of a product to the weight's statistics, without the rows of padding.

        In a padded batch, only those of the run that `BlockWatcher` uses for the weight are added.
        """
        if self._token_mask is None:
            self._add_tokens(weight, matrix, inputs)
        elif weight.name in self._child_of_expert:
            if self._is_second_run:
                self._add_tokens(weight, matrix, inputs)
            else:
                self._awaiting_second_run.add(weight.name)
        elif not self._is_second_run:
            if len(inputs) != self._token_mask.numel():
                reason = f"its product has {len(inputs)} rows for {self._token_mask.numel()} tokens"
                raise PruningError(f"{reason}, so that the rows of padding are not known; {ADVICE}", weight.name)
            self._add_tokens(weight, matrix, self._token_orders.tokens_of(weight, inputs, self._token_mask))

    def _add_unfollowed(self, name: str, reason: str) -> None:
        """Store why not all inputs of a weight are known."""
        statistics = self.statistics[name]
        statistics.unfollowed_reason = statistics.unfollowed_reason or reason

    def _add_tokens(self, weight: BlockWeight, matrix: int, inputs: Tensor) -> None:
        """Add inputs `[tokens, in]` without padding to the weight's statistics."""
        self.statistics[weight.name].add(matrix, inputs, self._last_product.of(inputs), self._batch)

    def _run_again(
        self, child: str, module: torch.nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any
    ) -> None:
        """Forward hook of a module that contains experts: run it a second time, on the tokens that are not padding.

        Raises:
            PruningError: If the module's arguments are not a single tensor `[sequences, tokens, ..]`, or its first
                output is not such a tensor; or if the outputs of the two runs differ by more than rounding.
        """
        if self._is_second_run:
            return
        assert self._token_mask is not None
        name, token_mask = f"{self._prefix}.{child}", self._token_mask
        inputs = [*arguments, *keywords.values()]
        if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or inputs[0].shape[:2] != token_mask.shape:
            reason = "its arguments are not one tensor [sequences, tokens, ..], so its rows of padding are not known"
            raise PruningError(f"{reason}; {ADVICE}", name)
        self._awaiting_second_run -= {
            weight_name for weight_name, child_of_weight in self._child_of_expert.items() if child_of_weight == child
        }
        self._is_second_run = True
        try:
            tokens = inputs[0][token_mask][None]  # one sequence of all tokens
            second_output = module(tokens) if arguments else module(**dict.fromkeys(keywords, tokens))
        finally:
            self._is_second_run = False
        outputs, second_outputs = tensors_of(output), tensors_of(second_output)
        if not outputs or outputs[0].shape[:2] != token_mask.shape:
            reason = "its output is not a tensor [sequences, tokens, ..], so its rows of padding are not known"
            raise PruningError(f"{reason}; {ADVICE}", name)
        if not torch.allclose(second_outputs[0][0], outputs[0][token_mask], rtol=1e-2, atol=1e-3):
            raise PruningError(f"its outputs depend on padding; {ADVICE}", name)


class _LastProduct:
    """The last `X^T X`, which is used again while the inputs X stay the same, as for query, key and value."""

    def __init__(self) -> None:
        self._inputs: Tensor | None = None
        self._product = torch.empty(0)

    def of(self, inputs: Tensor) -> Tensor:
        """Return `product_of(inputs)`, for inputs `[tokens, in]`."""
        if self._inputs is None or self._inputs.dtype != inputs.dtype or not torch.equal(self._inputs, inputs):
            # A copy, since the block may change its inputs in place between two products.
            self._inputs, self._product = inputs.detach().clone(), product_of(inputs)
        return self._product


def _child(name: str, prefix: str) -> str | None:
    """Return the name, inside the block, of the block's direct submodule that contains a parameter.

    None for a parameter that belongs to the block itself.
    """
    child, _, rest = name.removeprefix(f"{prefix}.").partition(".")
    return child if rest else None
