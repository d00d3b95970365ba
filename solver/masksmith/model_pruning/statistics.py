"""Statistics of a weight: for each of its matrices, the Gram matrix of the inputs and the number of tokens."""

from __future__ import annotations

from collections.abc import Collection

import torch

from masksmith._errors import PruningError

from .weights import BlockWeight

Tensor = torch.Tensor


class WeightStatistics:
    """Sums over the inputs of a weight.

    Args:
        weight: The weight.

    Attributes:
        gram: `[matrices, in, in]`, `X^T X` of the inputs `X [tokens, in]` of each matrix, float64.
        tokens: Number of tokens of each matrix.
        unfollowed_reason: Why these are not all inputs of the weight; None if they are.
    """

    def __init__(self, weight: BlockWeight) -> None:
        self.weight = weight
        self.gram = torch.zeros(
            (weight.matrix_count, weight.input_count, weight.input_count),
            dtype=torch.float64,
            device=weight.parameter.device,
        )
        self.tokens = [0] * weight.matrix_count
        self.unfollowed_reason: str | None = None

    def add(self, matrix: int, inputs: Tensor, product: Tensor, batch: int) -> None:
        """Add inputs of one matrix.

        Args:
            matrix: Number of the matrix.
            inputs: `[tokens, in]`.
            product: `product_of(inputs)`.
            batch: Number of the batch, for the message.

        Raises:
            PruningError: If an input, or a sum of products, is not finite.
        """
        if not bool(torch.isfinite(product).all()):
            are_finite = bool(torch.isfinite(inputs).all())
            reason = "its inputs overflow" if are_finite else "its inputs hold NaN or infinity"
            raise PruningError(f"{reason} in batch {batch}", self.weight.matrix_name(matrix))
        self.gram[matrix] += product
        self.tokens[matrix] += len(inputs)

    def count_silent_inputs(self) -> int:
        """Return the number of inputs that were 0 in every token, summed over the matrices that got tokens."""
        is_silent = self.gram.diagonal(dim1=1, dim2=2) == 0  # [matrices, in]
        return sum(int(row.sum()) for row, tokens in zip(is_silent, self.tokens, strict=True) if tokens)

    def reasons_not_to_use(self, min_tokens: int) -> dict[int, str]:
        """Return, by matrix number, why the statistics of a matrix are not used.

        There are too few tokens, all inputs are 0, or not all inputs are known.

        Matrices whose statistics are used are left out.
        """
        reasons = {}
        for matrix, tokens in enumerate(self.tokens):
            if tokens < min_tokens:
                reasons[matrix] = f"it got {tokens} token(s), fewer than min_tokens={min_tokens}"
                if not tokens and not self.weight.is_expert:  # A router may send no token to an expert.
                    reasons[matrix] += (
                        " (its block does not use it, or uses a copy of it, such as one that torch.autocast makes "
                        "inside the block)"
                    )
            elif self.unfollowed_reason is not None:
                reasons[matrix] = f"not all of its inputs are known: {self.unfollowed_reason}"
            elif not bool(self.gram[matrix].diagonal().any()):
                reasons[matrix] = f"all inputs of its {tokens} token(s) are 0"
        return reasons

    def gram_or_identity(self, matrices: Collection[int]) -> Tensor:
        """Return the Gram matrices `[*stack, in, in]`, with the identity for each matrix whose number is in `matrices`.

        With the identity, scores rank entries by the weights alone, and an update does not change the kept weights.
        """
        gram = self.gram.clone() if matrices else self.gram
        for matrix in matrices:
            gram[matrix] = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        return gram.reshape(*self.weight.stack_shape, *gram.shape[1:])

    def squared_norm(self, values: list[Tensor]) -> float:
        """Return the sum of `||X V^T||^2` over the matrices, in float64; `values` holds one `V [out, in]` for each."""
        total = 0.0
        for gram, value in zip(self.gram, values, strict=True):
            v = value.detach().double()
            total += float(((v @ gram) * v).sum().clamp(min=0))  # Rounding can make it negative.
        return total
