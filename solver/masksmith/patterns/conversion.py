"""Conversion of unstructured sparsity to N:M: the n for which nearly every group of a sparse tensor loses nothing."""

from __future__ import annotations

import math

from . import PatternError


def choose_n(zero_rate: float, m: int, quantile: float = 0.95) -> int:
    """Choose the n of an n:m pattern for a tensor with a given share of zeros.

    With independent zeros of probability p, a group has at least k of them with probability `P_k = sum_(i >= k) C(m, i)
    p^i (1 - p)^(m - i)`. The result is `n = m - max{k : P_k > quantile}`: at least a share `quantile` of the groups
    then loses no non-zero entry. If n would be 0, it is 1. Rule of Hubara et al. (NeurIPS 2021) for turning
    unstructured sparsity into N:M, per layer.

    Args:
        zero_rate: Share of zeros, in [0, 1]; `masksmith.zero_rate(weight)` measures it.
        m: Group length, 1 to 64.
        quantile: Share of groups, in [0, 1); a larger share gives a larger n.

    Returns:
        n, from 1 to m.

    Raises:
        PatternError: If an argument is out of its range.
    """
    if not (0 <= zero_rate <= 1 and 0 <= quantile < 1 and 1 <= m <= 64):
        raise PatternError(
            f"zero_rate={zero_rate}, m={m}, quantile={quantile}: expected 0 <= zero_rate <= 1, 1 <= m <= 64 and "
            f"0 <= quantile < 1"
        )
    probabilities = [math.comb(m, k) * zero_rate**k * (1 - zero_rate) ** (m - k) for k in range(m + 1)]
    zeros = max((k for k in range(1, m + 1) if math.fsum(probabilities[k:]) > quantile), default=0)
    return max(1, m - zeros)
