"""Layers and cases of a benchmark; a case is one matrix product, which each of its kernels computes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from masksmith.patterns import Pattern, parse

Direction = Literal["forward", "backward"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "backward")
DTYPES = ("float32", "float16", "bfloat16", "float64")
Purpose = Literal["asked", "curve"]
BASELINES = ("dense", "dense-zeros")
"""Kernels that gain nothing from the mask; they are measured first, and `CaseResult.gains` leaves them out."""


@dataclass(frozen=True)
class Layer:
    """A weight `[rows, cols]`, which a model has `count` times.

    Attributes:
        name: Name of the layer, or of the first layer of this shape; the shape as text if the layer has no name.
        rows: Outputs.
        cols: Inputs.
        count: How many layers of this shape the model has.
    """

    name: str
    rows: int
    cols: int
    count: int = 1

    @property
    def shape(self) -> str:
        """The shape as text, `ROWSxCOLS`."""
        return f"{self.rows}x{self.cols}"


@dataclass(frozen=True)
class Case:
    """One product: `X W^T` (forward, X is `[batch, cols]`) or `dY W` (backward, dY is `[batch, rows]`).

    Attributes:
        layer: The weight.
        batch: Rows of X or dY.
        dtype: Dtype of the weight and of X or dY.
        pattern: Pattern of the mask.
        direction: `forward` or `backward`.
        purpose: `asked`: the user requested the case; `curve`: it is a point of a curve for a break-even.
        kernels: The kernels to measure, baselines first.
    """

    layer: Layer
    batch: int
    dtype: str
    pattern: str
    direction: Direction
    purpose: Purpose = "asked"
    kernels: tuple[str, ...] = ()

    @property
    def rule(self) -> Pattern:
        """The parsed pattern."""
        return _parse_once(self.pattern)

    @property
    def matrix(self) -> tuple[int, int]:
        """Rows and columns of A, where the product is `X A^T`: W forward, W^T backward."""
        rows, cols = self.layer.rows, self.layer.cols
        return (rows, cols) if self.direction == "forward" else (cols, rows)

    def __str__(self) -> str:
        return f"{self.layer.shape}, {self.pattern}, batch {self.batch}, {self.dtype}, {self.direction}"


def labels(layers: Iterable[Layer]) -> dict[Layer, str]:
    """Return a different text for each layer: its shape; if several have this shape, with its name and count."""
    layers = list(dict.fromkeys(layers))
    shapes = Counter(layer.shape for layer in layers)
    return {
        layer: layer.shape if shapes[layer.shape] == 1 else f"{layer.shape} ({layer.name}, x{layer.count})"
        for layer in layers
    }


_parse_once = lru_cache(maxsize=1024)(parse)


def group(shapes: Iterable[tuple[str, int, int]]) -> list[Layer]:
    """Merge the layers of each shape, which are measured once, into one layer with the name of the first."""
    by_shape: dict[tuple[int, int], list[str]] = {}
    for name, rows, cols in shapes:
        by_shape.setdefault((rows, cols), []).append(name)
    return [Layer(names[0], rows, cols, len(names)) for (rows, cols), names in by_shape.items()]


def read_shapes(texts: Sequence[str]) -> list[Layer]:
    """Parse shapes such as `4096x4096` (out x in), or `4096x11008*32` for 32 layers of this shape.

    Each number has at most six digits.

    Raises:
        ValueError: If a text is not a shape.
    """
    layers = []
    for text in texts:
        size, _, count = text.replace(" ", "").lower().partition("*")
        rows, _, cols = size.partition("x")
        numbers = (rows, cols, count or "1")
        if not all(re.fullmatch("[0-9]{1,6}", number) and int(number) > 0 for number in numbers):
            raise ValueError(
                f"{text[:80]!r} is not a shape; write OUTxIN, such as 1536x384, or 1536x384*6 for six such layers"
            )
        layers.append(Layer(f"{int(rows)}x{int(cols)}", int(rows), int(cols), int(count or 1)))
    return layers
