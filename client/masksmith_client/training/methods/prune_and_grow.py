"""Prune and grow: drop entries of small magnitude, grow entries of large gradient, within the pattern."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from masksmith.patterns import Pattern, TilePattern, Unstructured
from masksmith_client._errors import InputError
from masksmith_client.training.masked_layer import MaskedLayer

from .method import Method, as_float
from .numbers import check_integer, check_share


@dataclass(frozen=True)
class PruneAndGrow(Method):
    """At each refresh drop the smallest kept weights and grow where the gradient is largest (RigL, Evci et al., 2020).

    The share dropped is `fraction / 2 * (1 + cos(pi * step / until))` up to step `until`, and then 0. Entries of a
    pattern cannot be grown independently, so growth is one exact optimization. A survivor is a kept entry that is not
    dropped; all other entries, the dropped ones too, are candidates. A candidate's score is the magnitude of its
    gradient, relative to the layer's largest. A survivor's score exceeds the sum of the candidates' scores in its tile;
    without tiles, it exceeds each candidate's score. Therefore the best mask keeps all survivors, and those candidates
    that add the largest sum of scores. Survivors are pruned in one case only: the schedule has changed the pattern, and
    no mask of the new pattern keeps them all. Grown entries start at zero. With transposable patterns an entry can
    be grown only together with others, so fewer entries are replaced than are dropped: some of the dropped ones are
    kept again.

    Attributes:
        fraction: Share of the kept entries that is dropped at the beginning, in (0, 1].
        until: Number of optimizer steps after which no entries are dropped.

    Raises:
        InputError: If a number is out of range.
    """

    until: int
    fraction: float = 0.3
    gives_scores: ClassVar[bool] = True
    needs_gradient: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_share("fraction", self.fraction)
        check_integer("until", self.until, 1)

    def check(self, pattern: Pattern) -> None:
        """Check that the pattern has independent tiles or no structure."""
        if not isinstance(pattern, TilePattern | Unstructured):
            raise InputError(
                f"PruneAndGrow needs a pattern of independent tiles, such as 2:4, or one without structure, such as "
                f"25%; {pattern} is neither"
            )

    def dropped_share(self, step: int) -> float:
        """Return the share of kept entries that is dropped after this many optimizer steps."""
        return self.fraction / 2 * (1 + math.cos(math.pi * min(step, self.until) / self.until))

    @torch.no_grad()
    def scores(self, layer: MaskedLayer, step: int) -> Tensor:
        """Score survivors above all others, candidates by their gradients; a dense layer by magnitudes.

        Raises:
            InputError: If the layer has a mask and no recorded gradient: no backward pass has reached it, or masks were
                requested by `refresh_now()`; gradients are recorded only for the refreshes of `Sparsifier.step()`.
        """
        weight = as_float(layer.whole_weight())
        if layer.masking.dense:
            return weight.abs()
        if layer.masking.gradient is None:
            raise InputError(
                f"{layer.name!r} has no gradient to select by: PruneAndGrow refreshes in step(), after a backward pass "
                "that reaches the layer, and not in refresh_now()"
            )
        gradient = as_float(layer.masking.gradient).abs()
        candidates = gradient / gradient.max().clamp_min(torch.finfo(gradient.dtype).tiny)
        survivors = self._survivors(weight.abs(), layer.whole_mask(), step)
        return torch.where(survivors, torch.full_like(candidates, layer.survivor_score), candidates)

    @torch.no_grad()
    def settle(self, layer: MaskedLayer, previous: Tensor | None) -> None:
        """Set grown entries to zero; without a previous mask none has grown."""
        if previous is not None:
            grown = layer.masking.mask & ~previous
            layer.weight.detach().masked_fill_(layer.masking.placed_like(grown, layer.weight), 0.0)

    def _survivors(self, magnitudes: Tensor, mask: Tensor, step: int) -> Tensor:
        """Return the mask without the `dropped_share` of kept entries that are smallest."""
        count = int(self.dropped_share(step) * int(mask.sum()))
        smallest = magnitudes.masked_fill(~mask, math.inf).flatten().topk(count, largest=False).indices
        survivors = mask.clone()
        survivors.view(-1)[smallest] = False
        return survivors
