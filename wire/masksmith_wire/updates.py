"""Weight updates as jobs name them: a method and its options, such as `"admm penalty=0.1"`."""

from __future__ import annotations

from collections.abc import Mapping

from .options_grammar import NUMBER, POSITIVE, Method, OptionKind, Options

UPDATES_VERSION = 1
"""Raised whenever an update may give other weights for the same input."""
MOST_ROUNDS = 10_000


def _count(text: str) -> int | None:
    is_count = text.isascii() and text.isdecimal() and len(text) <= len(str(MOST_ROUNDS))
    return int(text) if is_count and 0 < int(text) <= MOST_ROUNDS else None


_METHODS: Mapping[str, Options] = {
    "reconstruct": {"damping": NUMBER},
    "admm": {
        "damping": NUMBER,
        "penalty": POSITIVE,
        "max_rounds": OptionKind(f"a whole number from 1 to {MOST_ROUNDS}", _count),
    },
}


class UpdateMethod(Method):
    """How a job updates the weights that its masks keep."""

    plural = "updates"
    methods = _METHODS

    @property
    def needs_whole_tensors(self) -> bool:
        """Whether all rows of a tensor have a say in each other's weights."""
        return self.name == "admm"
