"""Options of pruning a language model's directory block by block."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

TUNE_STEPS = 128
"""Default of `masksmith.prune` after an update."""


@dataclass(frozen=True, slots=True)
class BlockOptions:
    """How blocks are pruned; see `masksmith.prune`.

    Attributes:
        order: Whether the statistics of a block are gathered at once, or after each group of its layers.
        tune_steps: Steps of Adam on the kept weights of a pruned block; None for `TUNE_STEPS` after an update, else 0.
        tune_rate: Their rate, relative to the root mean square of each weight.
        min_tokens: Fewest tokens that a matrix must get.
        few_tokens: What happens to a matrix that gets fewer.
    """

    order: Literal["together", "sequential"] = "together"
    tune_steps: int | None = None
    tune_rate: float = 0.02
    min_tokens: int = 64
    few_tokens: Literal["refuse", "without data"] = "refuse"

    def with_steps(self, *, is_updated: bool) -> BlockOptions:
        """Return the same options with a number of steps."""
        default = TUNE_STEPS if is_updated else 0
        return replace(self, tune_steps=default if self.tune_steps is None else self.tune_steps)

    def document(self) -> dict[str, Any]:
        """Return them as JSON."""
        return asdict(self)

    def changed(self) -> list[str]:
        """Return the command line's names of those that are not the defaults."""
        default = BlockOptions()
        changed = [each.name for each in fields(self) if getattr(self, each.name) != getattr(default, each.name)]
        return [f"--{name.replace('_', '-')}" for name in changed]
