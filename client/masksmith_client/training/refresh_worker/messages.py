"""Requests and responses: plain values that travel between processes as JSON."""

from __future__ import annotations

from pydantic import BaseModel


class RefreshRequest(BaseModel):
    """A request for masks of layers whose values lie in the shared memory.

    Attributes:
        step: Optimizer steps after which the values were copied.
        pattern, axis, ragged: The pattern.
        layers: Names of the layers.
        are_scores: Whether the values are scores, or weights whose magnitudes are.
        hysteresis: Bonus, in score units, for entries of the previous masks.
        timeout_s: Longest wait for the masks.
    """

    step: int
    pattern: str
    axis: str
    ragged: str
    layers: list[str]
    are_scores: bool
    hysteresis: float
    timeout_s: float


PROVED = ("status", "gap", "retained", "objective", "upper_bound")
"""What is known of a mask, by the names that solutions, results and reports give it."""


class LayerResult(BaseModel):
    """One layer's new mask, which lies in the shared memory; or why there is none.

    Attributes:
        unchanged: Nothing about the layer had changed, so it was not solved again: its mask stays.
        error: Why it has no mask; its last one stays.
        added, dropped: Entries that only the new mask keeps, or only the previous one.
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
        """Whether a new mask lies in the shared memory."""
        return self.error is None and not self.unchanged


class RefreshResponse(BaseModel):
    """The response to the request of the same `step`; `failure` says why there is no mask at all."""

    step: int
    layers: dict[str, LayerResult] = {}
    failure: str | None = None
