"""Update stage: updates the kept weights of a shard (`admm`: also its mask), to compensate for the dropped ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import masksmith as ms
from masksmith.layouts import Layout, default_axes
from masksmith_state.jobs.shards import PlannedTensor
from masksmith_wire.dtypes import to_bytes
from masksmith_wire.measures import UpdateReport
from masksmith_wire.updates import UpdateMethod

from .load import Array
from .memory import reserved_memory
from .work import ShardWork


@dataclass(frozen=True)
class UpdatedShard:
    """A shard with updated weights.

    Attributes:
        solution: The mask that the updated weights have.
        data: Bytes of the updated weights, in the tensor's own dtype.
        report: How much the layer's output differs from that of the dense layer.
    """

    solution: ms.Solution
    data: bytes
    report: UpdateReport


def check_installed(method: UpdateMethod) -> None:
    """Check that a method can be imported; called before the shard is solved.

    Raises:
        MissingExtraError: If it needs a package that is not installed.
    """
    getattr(ms, method.name)  # The package is lazy: this imports the method.


def update_shard(work: ShardWork, method: UpdateMethod, solution: ms.Solution) -> UpdatedShard:
    """Update a shard's weights.

    Args:
        work: The shard.
        method: Update method.
        solution: The shard's mask, which `reconstruct` keeps and `admm` starts from.

    Raises:
        UpdateError: If weights or Gram matrix are invalid; the error's row is a row of the tensor, or, in a stack, of
            one of its matrices.
        UploadMissingError: If an upload no longer exists. Other errors of reading: as `InputReader.rows`.
        InsufficientMemoryError: If the tensor's Gram matrix does not fit into memory.
    """
    try:
        solution, update = _update(work, method, solution)
    except ms.WeightError:
        raise  # A subclass of `UpdateError` with an error code of its own, so its class is kept.
    except ms.UpdateError as error:
        is_stack = work.tensor.layout is not None and work.tensor.layout.is_stack
        if error.row is None or is_stack:
            raise
        raise ms.UpdateError(error.reason, error.name, error.row + work.shard.first) from None
    return UpdatedShard(solution, to_bytes(update.weight, work.tensor.dtype), UpdateReport.of(update))


def _update(work: ShardWork, method: UpdateMethod, start: ms.Solution) -> tuple[ms.Solution, ms.Update]:
    # Imported here because it imports torch, which most shards do not need.
    from masksmith.updates import by_layout

    tensor, shard, specification = work.tensor, work.shard, work.specification
    assert tensor.gram is not None
    layout = tensor.layout or Layout(default_axes(tensor.shape))
    weight = work.inputs.rows(tensor, shard.first, shard.last)
    options: dict[str, Any] = {
        "pattern": specification.pattern,
        "solver": specification.options.solver,
        "threads": 1,
        # numpy has no bfloat16: `weight` is in float32, but its update is stored in bfloat16.
        "rounded_to": "bfloat16" if tensor.dtype == "BF16" else None,
        "on_progress": work.on_progress,
        **method.options,
    }
    # Number of the shard's matrices (or groups of matrices, in a stack with several axes); None without a stack.
    stacked_count = shard.last - shard.first if layout.is_stack else None
    with reserved_memory(tensor.gram, method.name, work.check, stacked_count):
        gram = (
            work.inputs.rows(tensor.gram, shard.first, shard.last) if layout.is_stack else GramOfJob(work, tensor.gram)
        )
        return by_layout(layout, method.name, weight, gram, start, **options)


class GramOfJob:
    """A Gram matrix of a job, read a few rows at a time; implements `masksmith.updates.gram_bands.GramRows`."""

    def __init__(self, work: ShardWork, tensor: PlannedTensor) -> None:
        self._work, self._tensor, self.shape = work, tensor, tuple(tensor.shape)

    def rows(self, first: int, last: int) -> Array:
        """Read rows `first` to `last` (exclusive); raises as `InputReader.rows` does."""
        self._work.check()
        return self._work.inputs.rows(self._tensor, first, last)
