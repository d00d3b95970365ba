"""Requests to the refresh worker, and its responses; they are sent to other processes as JSON."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Message(BaseModel):
    """Base class of messages. Their JSON keeps all values: NaN and infinities do not become null."""

    model_config = ConfigDict(ser_json_inf_nan="constants")


class RefreshRequest(Message):
    """A request for the masks of layers whose values are in the memory that loop and worker share.

    Attributes:
        step: Number of optimizer steps after which the values were copied.
        pattern, axis, ragged: The pattern, its axis, and how it treats ragged edges.
        layers: Names of the layers.
        are_scores: Whether the values are scores; otherwise they are weights, scored by magnitude.
        hysteresis: Added to the scores of entries that the previous masks keep, in units of the scores.
        timeout_s: Timeout in seconds if a service computes the masks; a function that computes them has no timeout.
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
RESULT_FIELDS = (*SOLUTION_FIELDS, "total_score")
"""Fields of a solution that are copied to the result of a layer."""


class LayerResult(Message):
    """The result of one layer; its new mask, if it has one, is in the memory that loop and worker share.

    Attributes:
        unchanged: Whether the layer was not solved, since its values and options are unchanged; it keeps its mask.
        error: Why solving the layer failed; it keeps its last mask, if it has one. None if solving succeeded, or if the
            layer is `unchanged`.
        status, objective, upper_bound, gap, retained, total_score: As in the solver's solution; None without a new
            mask, and if the solver returns only a mask.
        added: Number of entries that the new mask keeps and the previous one drops; 0 without a new mask.
        dropped: Number of entries that the new mask drops and the previous one keeps; 0 without a new mask.
    """

    unchanged: bool = False
    error: str | None = None
    status: str | None = None
    objective: float | None = None
    upper_bound: float | None = None
    gap: float | None = None
    retained: float | None = None
    total_score: float | None = None
    added: int = 0
    dropped: int = 0

    @property
    def has_new_mask(self) -> bool:
        """Whether the layer was solved: a new mask is in the memory."""
        return self.error is None and not self.unchanged


class RefreshResponse(Message):
    """The response to the request of the same `step`.

    Attributes:
        step: The step of the request.
        layers: The results by layer; empty if the whole request failed, or if the rank solves no layer.
        failure: Why the whole request failed; None if it did not fail.
    """

    step: int
    layers: dict[str, LayerResult] = {}
    failure: str | None = None
