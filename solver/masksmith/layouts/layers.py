"""Layers of other libraries, recognised by the names of their classes, so that nothing has to be imported."""

from __future__ import annotations


def is_transformers_conv1d(layer: object) -> bool:
    """Whether a layer is a `transformers.Conv1D`: a linear layer whose weight is `[in, out]`."""
    return any(base.__name__ == "Conv1D" for base in type(layer).__mro__)
