"""Updated weights of a shard: what the mask keeps makes up for what it drops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import masksmith as ms
from masksmith_state.blobs.store import BlobStore
from masksmith_state.jobs.shards import PlannedTensor, Shard
from masksmith_wire.documents import MasksOptions, UpdateReport
from masksmith_wire.dtypes import to_bytes
from masksmith_wire.updates import parse_update

from .score import read_rows


@dataclass(frozen=True)
class Updated:
    """A shard's weights in the tensor's own dtype, the mask that they belong to, and what they cost the output."""

    solution: ms.Solution
    data: bytes
    report: UpdateReport


def update_rows(
    store: BlobStore,
    tensor: PlannedTensor,
    shard: Shard,
    options: MasksOptions,
    solution: ms.Solution,
    check: Callable[[], None],
) -> Updated:
    """Update the weights of some rows.

    Args:
        store: Where weights and Gram matrix are.
        tensor: The tensor.
        shard: Its rows.
        options: The job's.
        solution: The rows' mask: the one to reconstruct on, or the one that ADMM starts from.
        check: Called now and then; what it raises stops the work.

    Raises:
        UpdateError: If weights or Gram matrix cannot be used.
        FileNotFoundError: If an upload is gone.
    """
    assert options.update is not None
    assert tensor.gram is not None
    method = parse_update(options.update)
    weight = read_rows(store, tensor, shard.first, shard.last)
    gram = read_rows(store, tensor.gram, 0, tensor.gram.shape[0])
    asked: dict[str, Any] = {
        "threads": 1,
        "rounded_to": "bfloat16" if tensor.dtype == "BF16" else None,
        "on_progress": lambda done, total: check(),
        **method.options,
    }
    if method.name == "reconstruct":
        update = ms.reconstruct(weight, solution.mask, gram, **asked)
        return Updated(solution, to_bytes(update.weight, tensor.dtype), _report(update, None))
    rule = ms.parse(options.pattern, axis=options.axis, ragged=options.ragged)
    found = ms.admm(weight, gram, rule, solver=options.solver, start=solution, **asked)
    return Updated(found.solution, to_bytes(found.weight, tensor.dtype), _report(found, found.solves))


def _report(update: ms.Update, solves: int | None) -> UpdateReport:
    return UpdateReport(
        error=update.error,
        masked_error=update.masked_error,
        energy=update.energy,
        update_s=update.stats["update_s"],
        solves=solves,
    )
