"""Finds the order of a product's rows in padded batches, so that the rows of padding can be left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from masksmith._errors import PruningError

from .calls import Tensors
from .products import ProductWatcher
from .weights import BlockWeight

Tensor = torch.Tensor
ADVICE = "calibrate without padding"
PROJECTIONS = 4
"""Number of random directions that a product's rows are projected on, so that two runs can be compared."""
TOLERANCE = 0.02
"""Largest difference of two projections of the same row, as a share of the row's norm: both have rounding errors."""


class TokenOrders:
    """The order of the rows of each weight's products: `[sequences, tokens]`, or `[tokens, sequences]`.

    Blocks may transpose their inputs, as `torch.nn.MultiheadAttention` does. So a block runs twice on a padded batch,
    the second time with other values at padding: only the rows of padding change. An order fits if all rows that are
    tokens in this order stay the same. Rows that do not change, since the block sets padding to 0 itself, fit both
    orders; then the block runs with other values in one sequence, where only rows of this sequence change.

    Args:
        weights: The weights, which multiply one row for each token.
    """

    def __init__(self, weights: Sequence[BlockWeight]) -> None:
        self._weights = list(weights)
        self._is_known = False
        self._are_tokens_first: dict[str, bool] = {}

    def find(self, run: Callable[[Tensors], object], inputs: Tensors, token_mask: Tensor) -> None:
        """Find the orders, unless an earlier batch has shown them.

        Args:
            run: Runs the block on inputs.
            inputs: The inputs of the block in a padded batch; the first one is `[sequences, tokens, ..]`.
            token_mask: `[sequences, tokens]`, False at padding.

        Raises:
            PruningError: If a weight's rows fit neither order, or change from run to run.
        """
        if self._is_known:
            return
        before = self._projections(run, inputs, token_mask)
        orders = self._fitting_orders(before, run, inputs, token_mask)
        # If the mask gives the same rows in both orders, as for a single sequence, the next batch decides.
        self._is_known = not torch.equal(_rows(token_mask, False), _rows(token_mask, True))
        if self._is_known and any(len(fitting) > 1 for fitting in orders.values()):
            by_sequence = self._fitting_orders(before, run, inputs, _without_longest(token_mask))
            orders = {name: _both(fitting, by_sequence[name]) if len(fitting) > 1 else fitting
                      for name, fitting in orders.items()}  # fmt: skip
        for name, fitting in orders.items():
            if not fitting or (self._is_known and len(fitting) > 1):
                reason = "its inputs at tokens depend on padding, or are in an order that is not known"
                raise PruningError(f"{reason}, so that the rows of padding are not known; {ADVICE}", name)
        self._are_tokens_first = {name: fitting[0] for name, fitting in orders.items()}

    def _fitting_orders(
        self,
        before: list[tuple[str, Tensor]],
        run: Callable[[Tensors], object],
        inputs: Tensors,
        unchanged: Tensor,
    ) -> dict[str, list[bool]]:
        """Run the block with other values, and return the orders of each weight in which only their rows change.

        Args:
            before: The projections of the block's products with `inputs`.
            run: Runs the block on inputs.
            inputs: The inputs of the block.
            unchanged: `[sequences, tokens]`, False where the first input gets other values.
        """
        after = self._projections(run, [_with_other_values(inputs[0], unchanged), *inputs[1:]], unchanged)
        orders: dict[str, list[bool]] = {}
        for position, (name, projected) in enumerate(before):
            is_repeated = after[position : position + 1] and after[position][0] == name
            fitting = _fitting_orders(projected, after[position][1], unchanged) if is_repeated else []
            orders[name] = _both(orders.get(name, fitting), fitting)
        return orders

    def tokens_of(self, weight: BlockWeight, inputs: Tensor, token_mask: Tensor) -> Tensor:
        """Return the rows of a product's inputs `[sequences * tokens, in]` that are not padding."""
        return inputs[_rows(token_mask, self._are_tokens_first.get(weight.name, False))]

    def _projections(
        self, run: Callable[[Tensors], object], inputs: Tensors, token_mask: Tensor
    ) -> list[tuple[str, Tensor]]:
        """Run the block; return each product's weight and the projections and the norms of its rows, in order."""
        projections: list[tuple[str, Tensor]] = []

        def add(weight: BlockWeight, matrix: int, rows: Tensor) -> None:
            if len(rows) == token_mask.numel():
                projections.append((weight.name, _projected(rows)))

        with ProductWatcher(self._weights, add):
            run(inputs)
        return projections


def _rows(token_mask: Tensor, are_tokens_first: bool) -> Tensor:
    """Return the mask of a product's rows."""
    return (token_mask.T if are_tokens_first else token_mask).reshape(-1)


def _fitting_orders(projected: Tensor, other: Tensor, mask: Tensor) -> list[bool]:
    """Return the orders in which the rows of the mask are the same in both runs: whether the tokens come first."""
    unchanged = _unchanged(projected, other)
    return [is_first for is_first in (False, True) if bool(unchanged[_rows(mask, is_first)].all())]


def _both(orders: list[bool], others: list[bool]) -> list[bool]:
    return [order for order in orders if order in others]


def _without_longest(token_mask: Tensor) -> Tensor:
    """Return a mask `[sequences, tokens]` that is False in the sequence with the most tokens."""
    mask = torch.ones_like(token_mask)
    mask[token_mask.sum(1).argmax()] = False
    return mask


def _with_other_values(activations: Tensor, mask: Tensor) -> Tensor:
    """Return a copy of `[sequences, tokens, ..]` with random values where a mask is False, as large as the others."""
    deviation = torch.nan_to_num(activations[mask].float().std(), nan=1.0, posinf=1.0) or 1.0
    noise = _normal(activations[~mask].shape, activations.device) * deviation
    changed = activations.clone()
    changed[~mask] = noise.to(changed.dtype)
    return changed


def _projected(rows: Tensor) -> Tensor:
    """Return `[rows, PROJECTIONS + 1]`: projections on random directions, and the norm; 0 where they are not finite."""
    values = rows.detach().float()
    projections = values @ _normal((values.shape[1], PROJECTIONS), values.device)
    return torch.cat([projections, values.norm(dim=1, keepdim=True)], dim=1).nan_to_num(0.0, 0.0, 0.0)


def _unchanged(projected: Tensor, other: Tensor) -> Tensor:
    """Return which rows are the same in both runs, apart from rounding."""
    norms = torch.maximum(projected[:, -1:], other[:, -1:])
    return ((projected - other).abs() <= TOLERANCE * norms).all(dim=1)


def _normal(shape: Sequence[int], device: torch.device) -> Tensor:
    """Return numbers of the standard normal distribution, the same ones at each call."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32, device="cpu").to(device)
