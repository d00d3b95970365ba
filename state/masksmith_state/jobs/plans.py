"""The plan of a masks job, a part of the job's record."""

from __future__ import annotations

from pydantic import BaseModel

from masksmith_wire.digests import is_digest
from masksmith_wire.documents import MasksOptions, Skipped
from masksmith_wire.masks import packed_bytes

from .outputs import PlannedOutput
from .shards import PlannedTensor


class MasksPlan(BaseModel):
    """The plan of a masks job: options, located tensors, skipped tensors, and the output that workers write."""

    options: MasksOptions
    tensors: list[PlannedTensor]
    skipped: list[Skipped] = []
    output: PlannedOutput | None = None

    @property
    def summary_fields(self) -> dict[str, str]:
        """The fields that job lists show."""
        return {"pattern": self.pattern_text[:200], "solver": self.options.solver}

    @property
    def patterns(self) -> list[str]:
        """The distinct patterns of the tensors; of a tensor without one (yet), as under a budget, the job's pattern."""
        return list(dict.fromkeys(tensor.pattern or self.options.pattern for tensor in self.tensors))

    @property
    def pattern_text(self) -> str:
        """The distinct patterns of the tensors, joined by commas."""
        return ", ".join(self.patterns)

    @property
    def uploads(self) -> list[str]:
        """Digests of all uploads that the job reads."""
        inputs = [
            part for tensor in self.tensors for part in (tensor, tensor.statistic, tensor.gram) if part is not None
        ]
        previous = self.options.previous or ""
        return sorted({part.digest for part in inputs if part.digest} | ({previous} if is_digest(previous) else set()))

    @property
    def earlier_results(self) -> list[str]:
        """Keys of the results of an earlier job that the job reads, as previous masks."""
        parts = [part for tensor in self.tensors for part in tensor.previous or ()]
        return sorted({part.result for part in parts if part.result is not None})

    @property
    def result_bytes(self) -> int:
        """Size of the results in bytes: packed masks, and updated weights if the job updates them."""
        masks = sum(packed_bytes(tuple(tensor.shape)) for tensor in self.tensors)
        weights = sum(tensor.shape[0] * tensor.row_bytes for tensor in self.tensors)
        return masks if self.options.update is None else masks + weights
