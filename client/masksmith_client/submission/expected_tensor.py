"""Shape, pattern and dtype that the results of a submitted tensor must have."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExpectedTensor:
    """What the results of a tensor must have.

    Attributes:
        shape: Shape of mask and updated weight.
        pattern: Pattern of the mask; None if the service assigns it, because the job has a budget.
        dtype: Dtype of the updated weight, by its safetensors name; None for a job of another process.
        axis, ragged: These options of the job; None for a job of another process.
        axes: Axes of the weight's layout; None if they are not known here.
    """

    shape: tuple[int, ...]
    pattern: str | None
    dtype: str | None = None
    axis: str | None = None
    ragged: str | None = None
    axes: str | None = None
