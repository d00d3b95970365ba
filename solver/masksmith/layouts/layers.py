"""Layers of other libraries, recognised by the names of their classes, so that nothing has to be imported."""

from __future__ import annotations


def is_transformers_conv1d(layer: object) -> bool:
    """Whether a layer is a `transformers.Conv1D`: a linear layer whose weight is `[in, out]`.

    False for a class of this name that is a linear layer or convolution of torch, or whose weight is no matrix.
    """
    names = {base.__name__ for base in type(layer).__mro__}
    if "Conv1D" not in names or names & {"Linear", "_ConvNd"}:
        return False
    return len(getattr(getattr(layer, "weight", None), "shape", ())) <= 2
