"""Reports of shards that succeeded or failed; they are stored with the record of the job."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from masksmith.patterns import HybridCounts
from masksmith_wire.errors import TensorError
from masksmith_wire.measures import DiversityReport, SpectrumReport, UpdateReport
from masksmith_wire.totals import relative_gap
from masksmith_wire.values import Seconds


class ShardReport(BaseModel):
    """The report of a shard that succeeded or failed.

    The report of a shard that wrote a file of an output has the defaults in all fields.

    Attributes:
        result: Key of the result in the store; None if the shard has no result.
        mask_digest: BLAKE3 of the packed mask in the store.
        weights_digest: BLAKE3 of the updated weights in the store; None without an update.
        pattern: The pattern that the request gave to this tensor, or that a budget assigned to it; None for the job's.
        budget_gap: Relative optimality gap of the division of the budget between tensors; None without a budget.
        status: Status of the solution; None if the shard has no result.
        objective, upper_bound: Objective of the shard's mask and its upper bound, in float64.
        total_score: Sum of all scores of the shard, in float64.
        kept_score: Sum of the kept scores. It differs from `objective` if the pattern maximises something else (blocks
            by another norm than l1). None in results of older workers, for which the two are equal.
        kept, entries: Number of kept entries, and of all entries.
        blocks: Number of 16x16 blocks with a kept entry; None if the shard does not consist of whole blocks.
        two_four: Whether the mask keeps at most 2 of each 4 entries of a row; this may be true under any pattern.
        hybrid: Numbers of blocks, values and index bits of a weight with this mask, in the format of a kernel, if the
            pattern is hybrid; then the shard is the whole tensor.
        diversity: Number of masks that an n:m pattern allows in a tile; only in the report of a tensor's first shard.
        spectrum: Singular values of the masked weight, if the job computes them; then the shard is the whole tensor.
        added: Number of entries that the mask keeps and the previous mask drops; None without a previous mask.
        dropped: Number of entries that the mask drops and the previous mask keeps; None without a previous mask.
        device: Device on which the shard was solved; of a failed shard, that of the worker that reports the error.
        error: Why the shard failed; then no other field is set, except `device` and sometimes `pattern`. None if the
            shard succeeded.
        remembered: Whether the result was in the store already.
    """

    model_config = ConfigDict(ser_json_inf_nan="constants")

    result: str | None = None
    mask_digest: str | None = None
    weights_digest: str | None = None
    pattern: str | None = None
    budget_gap: float | None = None
    status: str | None = None
    objective: float = 0.0
    upper_bound: float = 0.0
    total_score: float = 0.0
    kept_score: float | None = None
    kept: int = 0
    entries: int = 0
    blocks: int | None = None
    two_four: bool = False
    hybrid: HybridCounts | None = None
    diversity: DiversityReport | None = None
    spectrum: SpectrumReport | None = None
    added: int | None = None
    dropped: int | None = None
    solve_s: Seconds = 0.0
    solver: str = ""
    device: str = ""
    update: UpdateReport | None = None
    error: TensorError | None = None
    remembered: bool = False

    @property
    def gap(self) -> float:
        """Relative gap between objective and bound; see `relative_gap`."""
        return relative_gap(self.objective, self.upper_bound)
