"""Prune a model, for the command line and the SDK: open it, choose its tensors, solve their masks, write the copy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from masksmith_client._progress import Bar, ShowProgress
from masksmith_client.submission.statistics import AuxiliaryTensors

from .checkpoint import Checkpoint
from .choice import Choice, ChoiceOptions, choose
from .output_folder import check_output_folder
from .prune import prune
from .prune_method import PruneMethod
from .solved import Solve


def prune_model(
    model: Path,
    output: Path,
    options: ChoiceOptions,
    method: PruneMethod,
    solver: Callable[[Checkpoint, Choice, AuxiliaryTensors], Solve],
    *,
    progress: ShowProgress = None,
) -> dict[str, Any]:
    """Write a pruned copy of a model.

    Args:
        model: A directory, an index, or a `.safetensors` file.
        output: A new or empty directory, or that of an interrupted run of the same call.
        options: Patterns, and which tensors are masked.
        method: Scores and update.
        solver: Returns the function that solves the masks; called before anything is written.
        progress: Whether to show a progress bar; None shows it on terminals and in notebooks.

    Returns:
        The record, as it is written to the directory.

    Raises:
        InputError: If an argument is invalid, the checkpoint is quantised in a format that is not read, or the output
            contains other files.
        OSError: If a file cannot be written; the same call later continues where this one stopped.
    """
    checkpoint = Checkpoint.open(model)
    checkpoint.check_is_readable()
    check_output_folder(output, checkpoint)
    choice = choose(checkpoint, options)
    statistics = method.statistics(checkpoint, choice)
    solve = solver(checkpoint, choice, statistics)
    total = sum(header.file_bytes for header in checkpoint.headers.values())
    # With a text, blocks are pruned first, under a bar of their own; then files are written, which takes seconds.
    shown = progress if method.text is None else False
    with Bar("pruning", total, show=shown, in_bytes=True) as bar:
        return prune(checkpoint, choice, output, solve, method=method, statistics=statistics, on_bytes=bar.advance)
