"""Prunes a checkpoint into a directory: its files with pruned weights, a masks file and a record.

Only the tensor that is written, and those that the solver reads, are in memory. The same call continues an interrupted
run after the last tensor or file in its journal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from masksmith_client._errors import InputError
from masksmith_client.submission.statistics import AuxiliaryTensors
from masksmith_wire.masks import pack
from masksmith_wire.output_names import MASKS_NAME, RECORD_NAME

from .checkpoint import Checkpoint
from .choice import Choice
from .journal import Journal, open_journal
from .masks_output import MasksOutput
from .other_files import OtherFiles, other_files
from .output_folder import (
    changed_files,
    check_output_folder,
    check_space,
    created_folder,
    finish_folder,
    finished_record,
    identity,
    is_unchanged,
    prefix_digest,
)
from .partial_file import PartialFile, temporary_path
from .prune_method import PruneMethod
from .record import make_record, write_record
from .shard_output import OnBytes, ShardOutput
from .solved import Solve, SolvedTensor, TensorToSolve
from .steps import Step, Steps, make_steps


def prune(
    checkpoint: Checkpoint,
    choice: Choice,
    output: Path,
    solve: Solve,
    *,
    method: PruneMethod,
    statistics: AuxiliaryTensors,
    on_bytes: OnBytes = lambda count: None,
) -> dict[str, Any]:
    """Write a pruned copy of a checkpoint, in the format that `from_pretrained` loads.

    Args:
        checkpoint: The checkpoint to prune; the caller has called its `check_is_readable`.
        choice: What is done with each of its tensors.
        output: A new or empty directory, or that of an earlier run of the same call: an interrupted run is
            continued; of a finished run, the record is returned.
        solve: Solves the masks.
        method: Scores and update.
        statistics: The statistics and Gram matrices that scores and update need, by the tensor's name.
        on_bytes: Called with the number of bytes of the input that were processed since the last call; the bytes that
            earlier runs processed are included.

    Returns:
        The record, as it is written to the directory.

    Raises:
        InputError: If the output must not be written to (see `check_output_folder`), is that of another call, or is
            being written by another process; if the input has changed since an earlier run read it, or while this run
            reads it; or if a finished file of the output has changed since an earlier run wrote it.
        OSError: If a file cannot be written, or the output does not fit on the disk; the same call can continue later.
    """
    check_output_folder(output, checkpoint)
    run_identity = identity(checkpoint, choice, method, statistics)
    earlier_record = finished_record(output, checkpoint, run_identity)
    if earlier_record is not None:
        return earlier_record
    with created_folder(output), open_journal(output, run_identity) as journal:
        steps, updates_weights = make_steps(checkpoint, choice), method.update is not None
        run = _Run(
            checkpoint, choice, output.resolve(), journal, run_identity, steps, statistics, updates_weights, on_bytes
        )
        masks_digest = run.write_weights(solve)
        record = make_record(checkpoint, choice, method, run.certificates, run.finished_files, run.others, masks_digest)
        run.finish(record | {"identity": run_identity})
    return record | {"identity": run_identity}


def _changed_input_error(file: object, output: Path) -> InputError:
    return InputError(f"{file} has changed since {output} was begun; remove that directory and prune again")


@dataclass
class _Run:
    """One run of `prune`, whose certificates and finished files include those of the runs that it continues.

    Attributes:
        identity: What identifies the run; see `identity`.
        updates_weights: Whether the kept weights get new values, too.
        certificates: Certificates by the name of the tensor that was solved.
        finished_files: Lines of the journal by the name of the finished file.
    """

    checkpoint: Checkpoint
    choice: Choice
    output: Path
    journal: Journal
    identity: Mapping[str, Any]
    steps: Steps
    statistics: AuxiliaryTensors
    updates_weights: bool
    on_bytes: OnBytes
    certificates: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    finished_files: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def others(self) -> OtherFiles:
        """The files of the model besides its weights."""
        return other_files(self.checkpoint, self.output)

    def write_weights(self, solve: Solve) -> str:
        """Write the unfinished files of weights and the masks file; returns the digest of the masks file."""
        headers = self.checkpoint.headers
        masks = MasksOutput(self.output / MASKS_NAME, self.steps.mask_names, self.choice)
        with masks.file:
            partial_file_line = self._resume(masks)
            masks.begin()
            finished_bytes = sum(headers[file].file_bytes for file in headers if file.name in self.finished_files)
            self.on_bytes(finished_bytes)
            written_bytes = masks.file.size + (0 if partial_file_line is None else int(partial_file_line["stop"]))
            total = sum(header.file_bytes for header in headers.values()) + masks.total_bytes
            check_space(self.output, total - finished_bytes - written_bytes)
            with closing(solve(self._tensors_to_solve())) as solved_tensors:
                for file in headers:
                    if file.name not in self.finished_files:
                        self._write_file(file, masks, solved_tensors, partial_file_line)
                        partial_file_line = None
            digest = masks.file.digest
            masks.file.finish()
        return digest

    def _resume(self, masks: MasksOutput) -> Mapping[str, Any] | None:
        """Restore the results of earlier runs; returns the journal's last line if it is about a tensor, else None.

        A last line about a tensor means that the tensor's file is unfinished. All files are written again, for example
        after a power failure, if a finished file is missing, if the masks file differs from the journal, or, with an
        update, if the unfinished file of weights does.

        Raises:
            InputError: If the input that earlier runs read, or a finished file of the output, has changed.
        """
        lines = self.journal.lines
        if not lines:
            masks.file.restart()
            return None
        self.certificates = {line["tensor"]: line["certificate"] for line in lines if "tensor" in line}
        self.finished_files = {line["file"]: line for line in lines if "tensor" not in line}
        last = lines[-1]
        input_digests = {name: line["input"] for name, line in self.finished_files.items()}
        if changed := changed_files(self.checkpoint.folder, input_digests):
            raise _changed_input_error(changed[0], self.output)
        if "tensor" in last and prefix_digest(self._input_of_unfinished_file(), last["stop"]) != last["input"]:
            raise _changed_input_error(self._input_of_unfinished_file(), self.output)
        self._check_finished_files(last)
        if self._finished_files_exist() and self._can_continue_file(last) and self._resume_masks(masks, last):
            return last if "tensor" in last else None
        self._delete_finished_files()
        self.certificates, self.finished_files = {}, {}
        self.journal.restart(self.identity)
        masks.file.restart()
        return None

    def _resume_masks(self, masks: MasksOutput, last: Mapping[str, Any]) -> bool:
        """Continue the masks file; returns False, and discards it, if it does not have the digest in the journal."""
        if (self.output / MASKS_NAME).exists() and len(self.finished_files) == len(self.checkpoint.headers):
            masks.file.reopen_finished()
        return masks.file.resume(last["masks_stop"], last["masks"])

    def _check_finished_files(self, last: Mapping[str, Any]) -> None:
        """Check the digest of each finished file that exists; `last` is the journal's last line.

        After the last file of weights, the masks file is finished, too.

        Raises:
            InputError: If a file has another digest: its content is not from prune, so it is not overwritten.
        """
        digests = {name: line["output"] for name, line in self.finished_files.items()}
        if len(self.finished_files) == len(self.checkpoint.headers):
            digests[MASKS_NAME] = last["masks"]
        existing = {name: digest for name, digest in digests.items() if (self.output / name).exists()}
        if changed := changed_files(self.output, existing):
            raise InputError(
                f"{changed[0]} is not as prune wrote it; restore it, or remove {self.output} and prune again"
            )

    def _delete_finished_files(self) -> None:
        """Delete what earlier runs finished, before all of it is written again.

        The files must not stay: an error before the first new line of the journal removes the journal, and a directory
        with files but no journal would be refused when the command is repeated.
        """
        names = [*self.finished_files, RECORD_NAME]
        if len(self.finished_files) == len(self.checkpoint.headers):
            names.append(MASKS_NAME)
        for name in names:
            (self.output / name).unlink(missing_ok=True)

    def _finished_files_exist(self) -> bool:
        return all((self.output / name).is_file() for name in self.finished_files)

    def _can_continue_file(self, last: Mapping[str, Any]) -> bool:
        """Whether the run can continue the unfinished file of weights, if there is one, after the journal's last line.

        Without an update it always can: the unfinished file can be written again from the masks and the input. With an
        update, the file must have the digest in the journal; a file with another digest is discarded. A run that was
        killed after renaming the file but before writing its journal line is continued as well: the file gets its
        temporary name back.
        """
        if not self.updates_weights or "tensor" not in last:
            return True
        target = self.output / self._input_of_unfinished_file().name
        was_renamed = target.exists() and not temporary_path(target).exists()
        with PartialFile(target) as part:
            if was_renamed:
                part.reopen_finished()
            return part.resume(last["stop"], last["output"])

    def _input_of_unfinished_file(self) -> Path:
        return next(file for file in self.checkpoint.headers if file.name not in self.finished_files)

    def _tensors_to_solve(self) -> Iterator[TensorToSolve]:
        """Yield the tensors whose masks this run solves, in the order in which they are written."""
        for steps in self.steps.by_file.values():
            for step in steps:
                if step.solves and step.entry.name not in self.certificates:
                    assert step.chosen is not None
                    name, statistics = step.entry.name, self.statistics
                    yield TensorToSolve(
                        step.chosen,
                        self.checkpoint.weight(step.source.name),
                        statistics.statistics.get(name),
                        statistics.grams.get(name),
                    )

    def _write_file(
        self,
        file: Path,
        masks: MasksOutput,
        solved_tensors: Iterator[SolvedTensor],
        partial_file_line: Mapping[str, Any] | None,
    ) -> None:
        header = self.checkpoint.headers[file]
        with PartialFile(self.output / file.name) as part, file.open("rb", buffering=0) as source:
            if partial_file_line is None or not part.resume(partial_file_line["stop"], partial_file_line["output"]):
                part.restart()
            shard = ShardOutput(source, file, part, self.on_bytes)
            for step in self.steps.by_file[file]:
                # Tensors before the position were written by an earlier run.
                if step.entry.start >= shard.position:
                    self._write_tensor(step, shard, part, masks, solved_tensors)
            shard.copy_to(header.file_bytes)
            # The solver opens the file anew for each tensor, and may have read another version than is copied here.
            if not is_unchanged(file, self.identity["weights"]):
                raise _changed_input_error(file, self.output)
            state = {"bytes": part.size, "input": shard.input_digest, "output": part.digest}
            masks.file.flush()
            part.finish()
        line = {"file": file.name, **state, "masks_stop": masks.file.size, "masks": masks.file.digest}
        self.journal.write(line, durable=True)
        self.finished_files[file.name] = line

    def _write_tensor(
        self,
        step: Step,
        shard: ShardOutput,
        part: PartialFile,
        masks: MasksOutput,
        solved_tensors: Iterator[SolvedTensor],
    ) -> None:
        if step.chosen is None:
            return shard.write_from_indexed_file(step)
        if step.solves and step.entry.name not in self.certificates:
            return self._write_solved(step, shard, part, masks, next(solved_tensors))
        assert step.first_written is not None
        packed_mask = masks.read(step.first_written.name)
        if step.writes_mask and not masks.has(step.entry.name):
            masks.write(packed_mask)
        if not self.updates_weights:
            return shard.write_masked(step, packed_mask)
        # The updated values are in the output file of `first_written`, which may be the file that is being written.
        part.flush()
        file_of_first = self.output / step.first_written.file.name
        if file_of_first == part.target:
            file_of_first = part.path
        return shard.write_values(step.entry, replace(step.first_written, file=file_of_first).pieces())

    def _write_solved(
        self, step: Step, shard: ShardOutput, part: PartialFile, masks: MasksOutput, result: SolvedTensor
    ) -> None:
        name = step.entry.name
        if result.name != name:
            raise RuntimeError(f"the mask of {name!r} was expected, {result.name!r} was solved")
        packed_mask = pack(result.mask)
        if step.writes_mask and not masks.has(name):
            masks.write(packed_mask)
        if result.updated_bytes is None:
            shard.write_masked(step, packed_mask)
        else:
            shard.write_values(step.entry, [result.updated_bytes])
        self._record_solved(name, result.certificate, shard, part, masks)

    def _record_solved(
        self, name: str, certificate: dict[str, Any], shard: ShardOutput, part: PartialFile, masks: MasksOutput
    ) -> None:
        part.flush()
        masks.file.flush()
        state = {"input": shard.input_digest, "stop": part.size, "output": part.digest}
        state |= {"masks_stop": masks.file.size, "masks": masks.file.digest}
        self.journal.write({"tensor": name, **state, "certificate": certificate})
        self.certificates[name] = certificate

    def finish(self, record: dict[str, Any]) -> None:
        """Write the record, copy the model's other files and its index, and remove the journal."""
        write_record(self.output, record)
        finish_folder(self.checkpoint, self.output, self.others)
