"""The parts into which the outputs of a product are split, such as query, key and value, or gate and up."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from .sources import storage_of


@dataclass(slots=True)
class Rows:
    """Outputs `[..., out]` of a parameter's products.

    Attributes:
        length: How many outputs there are.
        spans: Which of them, first and last plus one, later operations use together.
    """

    length: int
    spans: set[tuple[int, int]] = field(default_factory=set)

    @property
    def parts(self) -> tuple[int, ...]:
        """Lengths of the parts that are never used together, in order; empty if there is only one."""
        merged: list[tuple[int, int]] = []
        for first, last in sorted(self.spans):
            if merged and first < merged[-1][1]:
                merged[-1] = merged[-1][0], max(merged[-1][1], last)
            else:
                merged.append((first, last))
        begins, ends = [first for first, _ in merged], [last for _, last in merged]
        if len(merged) < 2 or [0, *ends] != [*begins, self.length]:
            return ()
        return tuple(last - first for first, last in merged)


class Outputs:
    """Outputs of products, and which parts of them later operations use."""

    def __init__(self) -> None:
        self._tensors: dict[int, tuple[torch.Tensor, Rows]] = {}
        self._rows: dict[str, Rows] = {}

    def add(self, parameter: str, result: torch.Tensor, length: int) -> None:
        """Register the output of a product, if its last dimension is the outputs'."""
        if result.ndim and result.is_contiguous() and result.shape[-1] == length:
            rows = self._rows.setdefault(parameter, Rows(length))
            self._tensors[storage_of(result)] = result, rows

    def read(self, tensor: torch.Tensor) -> None:
        """Record that an operation other than a view uses a tensor, if this is a part of registered outputs."""
        _, rows = self._tensors.get(storage_of(tensor), (None, None))
        if rows is None:
            return
        first = int(tensor.storage_offset()) % rows.length
        sizes = zip(tensor.shape, tensor.stride(), strict=True)
        reach = sum((length - 1) * stride for length, stride in sizes if stride < rows.length)
        rows.spans.add((first, min(first + reach + 1, rows.length)))

    def parts(self) -> dict[str, tuple[int, ...]]:
        """Return the parts of each parameter whose outputs are split."""
        return {name: rows.parts for name, rows in self._rows.items() if rows.parts}
