"""Requests and responses that the training process and the refresh worker exchange as JSON."""

from __future__ import annotations

from pydantic import BaseModel


class RefreshRequest(BaseModel):
    """A request for the masks of layers whose values are in the shared memory.

    Attributes:
        step: Number of optimizer steps after which the values were copied.
        pattern, axis, ragged: The pattern, its axis, and how it treats ragged edges.
        layers: Names of the layers.
        are_scores: Whether the values are scores; otherwise they are weights, scored by magnitude.
        hysteresis: Added to the scores of entries that the previous masks keep, in units of the scores.
        timeout_s: Timeout for the masks, in seconds.
    """

    step: int
    pattern: str
    axis: str
    ragged: str
    layers: list[str]
    are_scores: bool
    hysteresis: float
    timeout_s: float


SOLUTION_FIELDS = ("status", "gap", "retained", "objective", "upper_bound")
"""Fields of a solution that are copied to the result and to the report of a layer."""


class LayerResult(BaseModel):
    """The result of one layer; its new mask, if it has one, is in the shared memory.

    Attributes:
        unchanged: The layer was not solved, since its values and options are unchanged; it keeps its mask.
        error: Why it has no new mask; it keeps its last one.
        status, objective, upper_bound, gap, retained: As in the solver's solution.
        added, dropped: Number of entries that only the new mask keeps, and that only the previous mask keeps.
    """

    unchanged: bool = False
    error: str | None = None
    status: str | None = None
    objective: float | None = None
    upper_bound: float | None = None
    gap: float | None = None
    retained: float | None = None
    added: int = 0
    dropped: int = 0

    @property
    def has_new_mask(self) -> bool:
        """Whether a new mask is in the shared memory."""
        return self.error is None and not self.unchanged


class RefreshResponse(BaseModel):
    """The response to the request of the same `step`; `failure` says why the whole request failed."""

    step: int
    layers: dict[str, LayerResult] = {}
    failure: str | None = None
