"""Options of pruning a language model's directory block by block."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

TUNE_STEPS = 128
"""Default `tune_steps` after an update, as in `masksmith.prune`."""


@dataclass(frozen=True, slots=True)
class BlockOptions:
    """How blocks are pruned; see `masksmith.prune`.

    Attributes:
        order: `together`: the statistics of a block are gathered in one pass before any of its weights is pruned;
            `sequential`: the statistics of each group of layers are gathered after the groups before it are pruned.
        tune_steps: Steps of Adam on the kept weights of a pruned block; None: `TUNE_STEPS` after an update, else 0.
        tune_rate: Learning rate of these steps, relative to the root mean square of each weight.
        min_tokens: Minimum number of tokens that a matrix must get.
        few_tokens: Treatment of a matrix that gets fewer tokens: `refuse` raises an error, `without data` masks it by
            its weights alone.
    """

    order: Literal["together", "sequential"] = "together"
    tune_steps: int | None = None
    tune_rate: float = 0.02
    min_tokens: int = 64
    few_tokens: Literal["refuse", "without data"] = "refuse"

    def with_steps(self, *, is_updated: bool) -> BlockOptions:
        """Return the same options with `tune_steps` as a number; `is_updated`: whether weights are updated."""
        default = TUNE_STEPS if is_updated else 0
        return replace(self, tune_steps=default if self.tune_steps is None else self.tune_steps)

    def document(self) -> dict[str, Any]:
        """Return the options as a dict of JSON values."""
        return asdict(self)

    def changed_flags(self) -> list[str]:
        """Return the command line's flags for the options whose values are not the defaults."""
        default = BlockOptions()
        names = [option.name for option in fields(self) if getattr(self, option.name) != getattr(default, option.name)]
        return [f"--{name.replace('_', '-')}" for name in names]
