"""Update: the kept weights of a shard make up for what the mask drops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import masksmith as ms
from masksmith_wire.documents import UpdateReport
from masksmith_wire.dtypes import to_bytes
from masksmith_wire.updates import UpdateMethod

from .load import load_rows
from .work import ShardWork


@dataclass(frozen=True)
class UpdatedShard:
    """A shard's weights in the tensor's own dtype, the mask that they belong to, and what they cost the output."""

    solution: ms.Solution
    data: bytes
    report: UpdateReport


def check_installed(method: UpdateMethod) -> None:
    """Check that a method can be imported; called before the shard is solved.

    Raises:
        MissingExtraError: If it needs a package that is not installed.
    """
    getattr(ms, method.name)


def update_shard(work: ShardWork, method: UpdateMethod, solution: ms.Solution) -> UpdatedShard:
    """Update a shard's weights.

    Args:
        work: The shard.
        method: How.
        solution: Its mask: the one to reconstruct on, or the one that ADMM starts from.

    Raises:
        UpdateError: If weights or Gram matrix cannot be used.
        UploadGoneError: If an upload is gone.
    """
    tensor = work.tensor
    assert tensor.gram is not None
    weight = load_rows(work.store, tensor, work.shard.first, work.shard.last)
    gram = load_rows(work.store, tensor.gram)
    options: dict[str, Any] = {
        "threads": 1,
        "rounded_to": "bfloat16" if tensor.dtype == "BF16" else None,
        "on_progress": work.on_progress,
        **method.options,
    }
    if method.name == "reconstruct":
        update = ms.reconstruct(weight, solution.mask, gram, **options)
        return UpdatedShard(solution, to_bytes(update.weight, tensor.dtype), _report(update, None))
    solver = work.specification.options.solver
    pruned = ms.admm(weight, gram, work.specification.pattern, solver=solver, start=solution, **options)
    return UpdatedShard(pruned.solution, to_bytes(pruned.weight, tensor.dtype), _report(pruned, pruned.solves))


def _report(update: ms.Update, solves: int | None) -> UpdateReport:
    return UpdateReport(
        error=update.error,
        masked_error=update.masked_error,
        energy=update.energy,
        update_s=update.stats["update_s"],
        solves=solves,
    )
