"""Options of pruning block by block, and their checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from masksmith._errors import PruningError
from masksmith._numbers import is_whole_number

SCORES: Mapping[str, str | None] = {"magnitude": None, "wanda": "norms", "ria": "norms", "sparsegpt": "gram"}
"""The scores that weights can be pruned by, each with the kind of statistic of inputs that it needs, or None."""

SCORE_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "magnitude": ("power",),
    "wanda": (),
    "ria": ("power",),
    "sparsegpt": ("damping", "form"),
}
"""By name of the scores, the options that a caller may set."""
UPDATE_OPTIONS: Mapping[str | None, tuple[str, ...]] = {
    "reconstruct": ("damping", "tolerance", "rounded_to"),
    "admm": ("damping", "penalty", "max_rounds", "rounded_to", "solver"),
    None: (),
}
"""By name of the update, the options that a caller may set."""
FewTokens = Literal["refuse", "without data"]
InputsFrom = Literal["pruned", "dense"]
Order = Literal["together", "sequential"]
TUNE_STEPS = 128
"""Default number of steps of tuning after an update."""


@dataclass(frozen=True)
class Options:
    """How the weights of each block are pruned; see `prune`.

    Values in `score_options` and `update_options` are checked only when weights are scored and updated.

    Raises:
        PruningError: If `score_options` or `update_options` has an unknown name, or if the value of another option is
            invalid.
    """

    scores: str = "wanda"
    update: str | None = "admm"
    score_options: Mapping[str, Any] = field(default_factory=dict)
    update_options: Mapping[str, Any] = field(default_factory=dict)
    inputs_from: InputsFrom = "pruned"
    min_tokens: int = 64
    few_tokens: FewTokens = "refuse"
    threads: int | None = None
    order: Order = "together"
    tune_steps: int | None = None
    tune_rate: float = 0.02

    def __post_init__(self) -> None:
        _check("scores", self.scores, tuple(SCORES))
        _check("update", self.update, tuple(UPDATE_OPTIONS))
        _check("inputs_from", self.inputs_from, ("pruned", "dense"))
        _check("few_tokens", self.few_tokens, ("refuse", "without data"))
        _check("order", self.order, ("together", "sequential"))
        if not isinstance(self.tune_steps_or_default, int) or self.tune_steps_or_default < 0:
            raise PruningError(f"tune_steps={self.tune_steps!r} must be a whole number, at least 0")
        if not 0 < self.tune_rate < float("inf"):
            raise PruningError(f"tune_rate={self.tune_rate} must be positive and finite")
        if self.min_tokens < 1:
            raise PruningError(f"min_tokens={self.min_tokens} must be at least 1")
        if self.threads is not None and not (is_whole_number(self.threads) and self.threads >= 1):
            raise PruningError(f"threads={self.threads!r} must be a whole number, at least 1")
        if self.update is None and self.update_options:
            raise PruningError(f"update_options {', '.join(self.update_options)} need an update")
        _check_names("score_options", self.score_options, self.scores, SCORE_OPTIONS[self.scores])
        _check_names("update_options", self.update_options, self.update, UPDATE_OPTIONS[self.update])

    @property
    def tune_steps_or_default(self) -> int:
        """`tune_steps`; by default `TUNE_STEPS` after an update, and 0 without one: kept weights then do not change."""
        if self.tune_steps is not None:
            return self.tune_steps
        return 0 if self.update is None else TUNE_STEPS


def _check(label: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise PruningError(f"{label}={value!r} is not one of: {', '.join(map(repr, allowed))}")


def _check_names(label: str, options: Mapping[str, Any], method: str | None, allowed: tuple[str, ...]) -> None:
    unknown = [name for name in options if name not in allowed]
    if unknown:
        names = ", ".join(map(repr, allowed)) or "none"
        raise PruningError(f"{label} has {unknown[0]!r}, which {method} does not take; its options: {names}")
