"""The parts into which the outputs of a product are split, such as query, key and value, or gate and up."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from .sources import storage_id


@dataclass(slots=True)
class OutputSpans:
    """Which of a parameter's outputs `[..., out]` later operations use together.

    Attributes:
        length: Number of outputs, `out`.
        spans: Ranges of outputs that one operation uses, each from its start to its stop (exclusive).
    """

    length: int
    spans: set[tuple[int, int]] = field(default_factory=set)

    @property
    def parts(self) -> tuple[int, ...]:
        """Lengths of the parts, in order; empty if there is only one, or if some outputs are in no span.

        Spans that overlap are in the same part, so no operation uses outputs of two parts.
        """
        merged: list[tuple[int, int]] = []
        for start, stop in sorted(self.spans):
            if merged and start < merged[-1][1]:
                merged[-1] = merged[-1][0], max(merged[-1][1], stop)
            else:
                merged.append((start, stop))
        starts, stops = [start for start, _ in merged], [stop for _, stop in merged]
        if len(merged) < 2 or [0, *stops] != [*starts, self.length]:
            return ()
        return tuple(stop - start for start, stop in merged)


class Outputs:
    """Results of products, and which of their outputs later operations use together."""

    def __init__(self) -> None:
        # By the identity of a result's storage: the result, which must stay alive, and the spans of its parameter.
        self._results: dict[int, tuple[torch.Tensor, OutputSpans]] = {}
        self._spans: dict[str, OutputSpans] = {}

    def add(self, parameter: str, result: torch.Tensor, length: int) -> None:
        """Register the result of a product with a parameter of `length` outputs.

        Nothing is registered unless the result is contiguous, and its last dimension has this length.
        """
        if result.ndim and result.is_contiguous() and result.shape[-1] == length:
            output_spans = self._spans.setdefault(parameter, OutputSpans(length))
            self._results[storage_id(result)] = result, output_spans

    def add_use(self, tensor: torch.Tensor) -> None:
        """Record that an operation other than a view uses a tensor, if this is a registered result or a view of one.

        A tensor without entries, such as the rest of a head whose dimensions are all rotated, uses no outputs.
        """
        _, output_spans = self._results.get(storage_id(tensor), (None, None))
        if output_spans is None or not tensor.numel():
            return
        first = int(tensor.storage_offset()) % output_spans.length
        # Dimensions with smaller strides than the number of outputs run along the outputs.
        dimensions = zip(tensor.shape, tensor.stride(), strict=True)
        distance = sum((size - 1) * stride for size, stride in dimensions if stride < output_spans.length)
        output_spans.spans.add((first, min(first + distance + 1, output_spans.length)))

    def parts(self) -> dict[str, tuple[int, ...]]:
        """Return the lengths of the parts, for each parameter whose outputs are split."""
        return {name: output_spans.parts for name, output_spans in self._spans.items() if output_spans.parts}
