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
    the second time with other values at padding: only the rows of padding change. Both orders are compared with this.

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
        after = self._projections(run, [_with_other_padding(inputs[0], token_mask), *inputs[1:]], token_mask)
        self._are_tokens_first = {}
        for position, (name, projected) in enumerate(before):
            is_repeated = after[position : position + 1] and after[position][0] == name
            fitting = _fitting_orders(projected, after[position][1], token_mask) if is_repeated else []
            if not fitting or self._are_tokens_first.setdefault(name, fitting[0]) not in fitting:
                reason = "its inputs at tokens depend on padding, or are in an order that is not known"
                raise PruningError(f"{reason}, so that the rows of padding are not known; {ADVICE}", name)
        # A mask that is the same in both orders, such as that of one sequence, does not show which one it is.
        self._is_known = not torch.equal(_rows(token_mask, False), _rows(token_mask, True))

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


def _fitting_orders(projected: Tensor, other: Tensor, token_mask: Tensor) -> list[bool]:
    """Return the orders in which the rows of tokens are the same in both runs: whether the tokens come first."""
    unchanged = _unchanged(projected, other)
    return [is_first for is_first in (False, True) if bool(unchanged[_rows(token_mask, is_first)].all())]


def _with_other_padding(activations: Tensor, token_mask: Tensor) -> Tensor:
    """Return a copy of `[sequences, tokens, ..]` with random values at padding, as large as those of tokens."""
    deviation = torch.nan_to_num(activations[token_mask].float().std(), nan=1.0, posinf=1.0) or 1.0
    noise = _normal(activations[~token_mask].shape, activations.device) * deviation
    changed = activations.clone()
    changed[~token_mask] = noise.to(changed.dtype)
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
