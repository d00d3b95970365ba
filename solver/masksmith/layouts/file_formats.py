"""Why a layout is unclear in files whose axes differ from those of torch, by `__metadata__.format` or tensor name."""

from __future__ import annotations

import re
from collections.abc import Sequence

_LEAST_DIMS = {"tf": 2, "flax": 2, "jax": 2, "mlx": 3}
"""Smallest number of dimensions at which a format's axes differ from those of torch.

The order of the axes is `[out, *kernel, in]` in MLX, and `[*kernel, in, out]` in the others.
"""

_WEIGHT_NAME = re.compile(r"(?:^|[./])kernel$|:\d+$")
"""Matches names that weights have in Flax and TensorFlow."""


def format_reason(file_format: str, shape: Sequence[int]) -> str | None:
    """Return why the layout of a tensor is unclear in a file of this format; None if its axes are those of torch."""
    least_dims = _LEAST_DIMS.get(file_format)
    if least_dims is None or len(shape) < least_dims:
        return None
    advice = _advice(shape, file_format)
    return f"its file is of the format {file_format!r}, whose axes differ from those of torch; {advice}"


def name_reason(name: str, shape: Sequence[int]) -> str | None:
    """Return why the layout of a tensor is unclear if its name is one of Flax or TensorFlow.

    None for other names, and for tensors of fewer than two dimensions.
    """
    if len(shape) < 2 or _WEIGHT_NAME.search(name) is None:
        return None
    return f"its name is one of Flax or TensorFlow, whose axes differ from those of torch; {_advice(shape)}"


def _advice(shape: Sequence[int], file_format: str = "") -> str:
    kernel = ["kernel"] * (len(shape) - 2)
    axes = " ".join(("out", *kernel, "in") if file_format == "mlx" else (*kernel, "in", "out"))
    return f"name the axes with a layout, such as {axes!r}"
