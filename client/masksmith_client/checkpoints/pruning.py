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
    make_solve: Callable[[Checkpoint, Choice, AuxiliaryTensors], Solve],
    *,
    progress: ShowProgress = None,
) -> dict[str, Any]:
    """Write a pruned copy of a model.

    Args:
        model: A directory, an index, or a `.safetensors` file.
        output: A new or empty directory, or that of an interrupted run of the same call.
        options: Patterns, and which tensors are masked.
        method: Scores and update.
        make_solve: Returns the function that solves the masks; called before anything is written.
        progress: Whether to show a progress bar; see `ShowProgress`.

    Returns:
        The record of the pruning, as it is written to `output`.

    Raises:
        InputError: If an argument is invalid; if the checkpoint is quantised in a format that is not read; or if the
            output contains other files.
        OSError: If a file cannot be written; the same call later continues where this one stopped.
        ClientError: Any error of `make_solve` or of the function that it returns.
    """
    checkpoint = Checkpoint.open(model)
    checkpoint.check_is_readable()
    check_output_folder(output, checkpoint)
    choice = choose(checkpoint, options)
    statistics = method.statistics(checkpoint, choice)
    solve = make_solve(checkpoint, choice, statistics)
    total = sum(header.file_bytes for header in checkpoint.headers.values())
    # With a calibration text, blocks are pruned first, under a bar of their own; files are written in seconds.
    show = progress if method.text is None else False
    with Bar("pruning", total, show=show, in_bytes=True) as bar:
        return prune(checkpoint, choice, output, solve, method=method, statistics=statistics, on_bytes=bar.advance)
