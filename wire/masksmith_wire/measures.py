"""Members of a tensor's report: the errors of an update, and measures of the mask and the masked weight."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from .values import Count, Ratio, Seconds


class UpdateReport(BaseModel):
    """Squared errors of a layer's output on the calibration data, with and without an update; see `masksmith.Update`.

    `error` is the error after the update; it is at most `masked_error`, the error of the same mask without the update.
    `energy` is the squared norm of the dense output. `update_s` is the duration of the update in seconds. `solves` is
    the number of masks that ADMM computed; null for `reconstruct`.
    """

    error: float
    masked_error: float
    energy: float
    update_s: Seconds
    solves: int | None = None

    @classmethod
    def of(cls, update: Any) -> UpdateReport:
        """Report a `masksmith.Update`."""
        return cls(
            error=update.error,
            masked_error=update.masked_error,
            energy=update.energy,
            update_s=update.stats["update_s"],
            solves=update.stats.get("solves"),
        )


class DiversityReport(BaseModel):
    """Number of masks that a pattern allows in a tile.

    `count` is a decimal string, or null if counting would take too long. `method` says how `log2_count` was computed:
    it is `exact` if there is a `count`, else `asymptotic` or `lower bound` (see `masksmith.diversity`).
    `log2_published` is the logarithm by the formula of Hubara et al. (2021), which is often too large; null if it does
    not apply. `bits_per_weight` is `log2_count` divided by the number of entries of the tile.
    """

    rows: int
    cols: int
    count: str | None
    log2_count: float
    bits_per_weight: float
    method: str
    log2_published: float | None


class ChangeReport(BaseModel):
    """Difference to the previous mask: `sad` (sum of absolute differences) is the number of entries that differ.

    `added` is the number of entries that only the new mask keeps, `dropped` the number of entries that only the
    previous mask keeps. `flip_rate` is `sad` divided by the number of all entries.
    """

    sad: Count
    added: Count
    dropped: Count
    flip_rate: Ratio


class SpectrumReport(BaseModel):
    """Smallest, mean and largest singular value of the masked weight."""

    least: float
    mean: float
    most: float
