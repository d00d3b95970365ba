"""Prunes a checkpoint's blocks into a folder of the output, and yields the result of each tensor."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Generator, Iterator
from itertools import chain
from pathlib import Path

from masksmith_client._errors import InputError, as_input_errors
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.choice import Choice
from masksmith_client.checkpoints.prune_method import PruneMethod
from masksmith_client.checkpoints.solved import Solve, SolvedTensor, TensorToSolve
from masksmith_client.cli.local import import_library
from masksmith_wire.output_names import BLOCKS_NAME, RECORD_NAME

PACKAGES = ("torch", "transformers", "accelerate")
"""Packages that pruning block by block needs."""


def block_solver(
    checkpoint: Checkpoint,
    choice: Choice,
    method: PruneMethod,
    output: Path,
    *,
    threads: int | None,
    trust_remote_code: bool,
) -> Solve:
    """Return a function that prunes all blocks, then yields each tensor's mask, and its weight if that is updated.

    Raises:
        InputError: If a package is missing, the model has no list of blocks, a dtype cannot be updated, the text is too
            short, or a tensor is not found in the model.
        OSError: If the free space of the disk is too small.
    """
    masksmith = import_library()
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"--calibration-text needs {' and '.join(missing)}: pip install 'masksmith[huggingface]'")
    from masksmith.model_pruning import find_blocks

    from .calibration_batches import calibration_batches
    from .disk_space import space_of
    from .run import BlockPruning
    from .skeleton import Skeleton
    from .stored_parts import stored_parts

    skeleton = Skeleton(checkpoint, trust_remote_code=trust_remote_code)
    with as_input_errors(masksmith.MasksmithError):
        blocks = find_blocks(skeleton.model)
    _check_dtypes(choice, method)
    parts = stored_parts(skeleton, choice.masked_tensors)
    batches = calibration_batches(checkpoint, method, skeleton.model, trust_remote_code=trust_remote_code)
    folder = output.resolve() / BLOCKS_NAME
    is_updated = method.update is not None
    space = space_of(checkpoint, choice, skeleton.model, batches, is_updated=is_updated)

    def new_pruning() -> BlockPruning:
        return BlockPruning(skeleton, blocks, choice, method, parts, folder, threads)

    with as_input_errors(masksmith.MasksmithError):
        # If the record exists, an earlier run has written all weights.
        if not (folder.with_name(RECORD_NAME).exists() or new_pruning().is_finished):
            space.check(folder.parent)

    def solve(tensors: Iterator[TensorToSolve]) -> Generator[SolvedTensor]:
        first = next(tensors, None)
        if first is None:  # An earlier run has written all tensors.
            return
        with as_input_errors(masksmith.MasksmithError):
            pruning = new_pruning()
            try:
                pruning.run(batches)
            except Exception:  # Ctrl-C is no `Exception`: after it, the captured calls are kept for the next run.
                if not pruning.has_progress:
                    shutil.rmtree(folder, ignore_errors=True)
                raise
        for tensor in chain((first,), tensors):
            yield pruning.finished_blocks.read(tensor.chosen)

    return solve


def _check_dtypes(choice: Choice, method: PruneMethod) -> None:
    """Raise an InputError if weights are updated, and one has a dtype whose values cannot be updated."""
    from .skeleton import TORCH_DTYPES

    for tensor in choice.masked_tensors:
        if method.update is not None and tensor.dtype not in TORCH_DTYPES:
            raise InputError(f"{tensor.name!r} has dtype {tensor.dtype}, whose values cannot be updated; omit --update")
