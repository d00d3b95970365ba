"""Methods of jobs to update weights, such as `"admm penalty=0.1"`."""

from __future__ import annotations

from collections.abc import Mapping

from .options_grammar import Method, OptionType, OptionTypes, number_from
from .scores import MAX_DAMPING

UPDATES_VERSION = 2
"""Increased whenever an update may give different weights for the same input."""
MAX_ROUNDS = 10_000


def _parse_count(text: str) -> int | None:
    is_count = text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_ROUNDS))
    return int(text) if is_count and 0 < int(text) <= MAX_ROUNDS else None


_METHODS: Mapping[str, OptionTypes] = {
    "reconstruct": {"damping": number_from(0, MAX_DAMPING)},
    "admm": {
        "damping": number_from(0, MAX_DAMPING),
        "penalty": number_from(1e-6, 1e6),
        "max_rounds": OptionType(f"a whole number from 1 to {MAX_ROUNDS}", _parse_count),
    },
}


class UpdateMethod(Method):
    """The method by which a job updates the weights that its masks keep."""

    plural = "updates"
    methods = _METHODS

    @property
    def needs_whole_tensors(self) -> bool:
        """Whether the update of a row depends on all rows of the tensor."""
        return self.name == "admm"
