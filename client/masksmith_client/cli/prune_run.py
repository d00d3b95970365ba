"""The three ways in which `masksmith prune` prunes (in this process, by a service, by reference), and its table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.choice import Choice, ChoiceOptions
from masksmith_client.checkpoints.prune_method import PruneMethod
from masksmith_client.checkpoints.pruning import prune_model
from masksmith_client.checkpoints.solved import Solve
from masksmith_client.submission.statistics import AuxiliaryTensors
from masksmith_wire.measures import UpdateReport
from masksmith_wire.output_names import BLOCK_PAGE_NAME
from masksmith_wire.quantities import count_text

from .block_prune.report_files import blocks_not_tuned
from .console import end_line, gap_text, percent, print_line, print_note, show_table, time_text
from .report import UPDATE_COLUMNS, update_cells

STOPPED_AT_SERVICE = "stopped, and the service's jobs are canceled"


def prune_locally(
    model: Path, output: Path, options: ChoiceOptions, method: PruneMethod, threads: int | None
) -> dict[str, Any]:
    """Prune a model, and solve its masks in this process; returns the record of the output."""
    make_solve = _local_make_solve(method, options, output, threads)
    with _resume_hint("stopped"):
        return prune_model(model, output, options, method, make_solve, progress="lines")


def _local_make_solve(
    method: PruneMethod, options: ChoiceOptions, output: Path, threads: int | None
) -> Callable[[Checkpoint, Choice, AuxiliaryTensors], Solve]:
    """Return `make_solve` for `prune_model`: with a calibration text it solves by block, else by tensor."""
    from .block_prune import block_solver
    from .local_prune import local_solver

    if method.text is None:
        solve = local_solver(method, threads)
        return lambda *_: solve
    trust = options.trust_remote_code
    return lambda checkpoint, choice, _: block_solver(
        checkpoint, choice, method, output, threads=threads, trust_remote_code=trust
    )


def prune_by_reference(
    url: str | None,
    model: str,
    output: str,
    options: ChoiceOptions,
    method: PruneMethod,
    previous: str | None,
    job_options: Mapping[str, Any],
) -> dict[str, Any]:
    """Have the workers of a service prune a model that they read themselves; returns the record of the output."""
    # Imported here, and in `prune_remotely`, since --local sends no requests.
    from masksmith_client._client import Client
    from masksmith_client.checkpoints.by_reference import ReferencePruner

    from .service import note_waiting

    with Client(url) as client, _resume_hint(STOPPED_AT_SERVICE):
        pruner = ReferencePruner(client.jobs, method, "lines", on_submit=note_waiting, previous=previous, **job_options)
        return pruner.prune(model, output, options)


def prune_remotely(
    url: str | None,
    model: Path,
    output: Path,
    options: ChoiceOptions,
    method: PruneMethod,
    job_options: Mapping[str, Any],
) -> dict[str, Any]:
    """Prune a model, and have its masks solved by a service; returns the record of the output."""
    from masksmith_client._client import Client
    from masksmith_client.checkpoints.remote import RemoteSolver

    from .service import note_waiting

    with Client(url) as client, _resume_hint(STOPPED_AT_SERVICE):

        def make_solve(checkpoint: Checkpoint, choice: Choice, statistics: AuxiliaryTensors) -> Solve:
            reason = client.info().trouble
            if reason is not None:
                print_note(f"masksmith: {client.url} is not ready, jobs wait: {reason}")
            return RemoteSolver.checked(
                client.jobs, method, checkpoint, choice, statistics, on_submit=note_waiting, **job_options
            )

        return prune_model(model, output, options, method, make_solve, progress="lines")


@contextmanager
def _resume_hint(outcome: str) -> Iterator[None]:
    """After Ctrl-C, print the outcome, such as `stopped`, and how to continue; the exception is raised again."""
    try:
        yield
    except KeyboardInterrupt:
        end_line()
        print_note(f"masksmith: {outcome}; the same command continues from here")
        raise


def show(record: dict[str, Any], output: str) -> None:
    """Print the masked tensors of a record as a table; then its notes, the files not copied, and the totals."""
    masked = [tensor for tensor in record["tensors"] if tensor["masked"]]
    has_updates = record["update"] is not None
    has_changes = any("change" in tensor for tensor in masked)
    columns = ["tensor", "axes", "pattern", "status", "shape", "kept", "retained", "gap", "time"]
    columns += ["changed"] if has_changes else []
    columns += UPDATE_COLUMNS if has_updates else ()
    rows = [_row(tensor, has_changes=has_changes, has_updates=has_updates) for tensor in masked]
    show_table(columns, rows, left_aligned=4)
    _show_summary(record, output)


def _row(tensor: Mapping[str, Any], *, has_changes: bool, has_updates: bool) -> list[str]:
    row = [
        tensor["name"],
        tensor["axes"],
        tensor["pattern"],
        tensor["status"],
        "x".join(map(str, tensor["shape"])),
        percent(tensor["density"]),
        percent(tensor["retained"]),
        gap_text(tensor["gap"]),
        time_text(tensor["solve_s"]),
    ]
    if has_changes:
        row.append(percent(tensor["change"]["flip_rate"]) if "change" in tensor else "")
    if has_updates:
        row += update_cells(UpdateReport.model_validate(tensor["update"]))
    return row


def _show_summary(record: dict[str, Any], output: str) -> None:
    for text in record["notes"]:
        print_note(f"masksmith: {text}")
    if record["not_copied"]:
        names = ", ".join(record["not_copied"])
        kinds = "other files of weights, files that masksmith writes, links to folders, special files"
        print_line(f"not copied ({kinds}): {names}")
    if (page := Path(output) / BLOCK_PAGE_NAME).exists():
        for text in blocks_not_tuned(Path(output)):
            print_note(f"masksmith: {text}")
        print_line(f"errors and times of each block: {page}")
    totals = record["totals"]
    print_line(
        f"{count_text(totals['masked'])} of {count_text(totals['tensors'])} tensor(s) masked: "
        f"{percent(totals['density'])} of entries kept, gap {gap_text(totals['gap'])}; "
        f"{percent(totals['zeros'])} of all parameters are zero -> {output}"
    )
