"""File formats whose axes differ from those of torch, recognised by `__metadata__.format` or by names of tensors."""

from __future__ import annotations

import re
from collections.abc import Sequence

_LEAST_DIMS = {"tf": 2, "flax": 2, "jax": 2, "mlx": 3}
"""Smallest number of dimensions at which a format's axes differ from those of torch.

Their order is `[*kernel, in, out]`, in MLX `[out, *kernel, in]`.
"""

_KERNEL = re.compile(r"(?:^|[./])kernel$|:\d+$")
"""Names of weights in Flax and TensorFlow."""


def format_reason(file_format: str, shape: Sequence[int]) -> str | None:
    """Return why the layout of a tensor is unclear in a file of this format, or None."""
    if len(shape) < _LEAST_DIMS.get(file_format, len(shape) + 1):
        return None
    advice = _advice(shape, file_format)
    return f"its file is of the format {file_format!r}, whose axes differ from those of torch; {advice}"


def kernel_reason(name: str, shape: Sequence[int]) -> str | None:
    """Return why the layout of a tensor is unclear if its name is one of Flax or TensorFlow; None for other names."""
    if len(shape) < 2 or _KERNEL.search(name) is None:
        return None
    return f"its name is one of Flax or TensorFlow, whose axes differ from those of torch; {_advice(shape)}"


def _advice(shape: Sequence[int], file_format: str = "") -> str:
    kernel = ["kernel"] * (len(shape) - 2)
    axes = " ".join(("out", *kernel, "in") if file_format == "mlx" else (*kernel, "in", "out"))
    return f"name the axes with a layout, such as {axes!r}"
