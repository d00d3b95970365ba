"""The plan of a masks job; it is stored in the job's record."""

from __future__ import annotations

from pydantic import BaseModel

from masksmith_wire.digests import is_digest
from masksmith_wire.documents import MasksOptions, Skipped
from masksmith_wire.masks import packed_bytes

from .outputs import PlannedOutput
from .shards import PlannedTensor


class MasksPlan(BaseModel):
    """The plan of a masks job: options, located tensors, skipped tensors, and the output if workers write one."""

    options: MasksOptions
    tensors: list[PlannedTensor]
    skipped: list[Skipped] = []
    output: PlannedOutput | None = None

    @property
    def summary_fields(self) -> dict[str, str]:
        """Fields for lists of jobs: the patterns, cut to 200 characters, and the solver."""
        return {"pattern": self.pattern_text[:200], "solver": self.options.solver}

    @property
    def patterns(self) -> list[str]:
        """The distinct patterns of the tensors; a tensor whose `pattern` is None has the job's pattern.

        Under a budget, the patterns that are allocated to the tensors later are not among them.
        """
        return list(dict.fromkeys(tensor.pattern or self.options.pattern for tensor in self.tensors))

    @property
    def pattern_text(self) -> str:
        """The distinct patterns of the tensors, joined by commas."""
        return ", ".join(self.patterns)

    @property
    def uploads(self) -> list[str]:
        """Digests of all uploads that the job reads."""
        digests = {
            stored.digest
            for tensor in self.tensors
            for stored in (tensor, tensor.statistic, tensor.gram)
            if stored is not None and stored.digest
        }
        previous = self.options.previous or ""
        return sorted(digests | ({previous} if is_digest(previous) else set()))

    @property
    def earlier_results(self) -> list[str]:
        """Keys of the results that the job reads as previous masks; empty unless `previous` names an earlier job."""
        parts = [part for tensor in self.tensors for part in tensor.previous or ()]
        return sorted({part.result for part in parts if part.result is not None})

    @property
    def result_bytes(self) -> int:
        """Size of the results in bytes: packed masks, and updated weights if the job updates them."""
        mask_bytes = sum(packed_bytes(tuple(tensor.shape)) for tensor in self.tensors)
        weight_bytes = sum(tensor.shape[0] * tensor.row_bytes for tensor in self.tensors)
        return mask_bytes if self.options.update is None else mask_bytes + weight_bytes
