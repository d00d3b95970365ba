"""Finishes an output whose files of weights are complete: writes masks, other files and record."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from blake3 import blake3

from masksmith.layouts import Layout, default_axes
from masksmith_state.errors import ReplacedBlobError
from masksmith_state.jobs.certificates import certificate, change
from masksmith_state.jobs.outputs import NOTE_PREFIX
from masksmith_state.jobs.reports import ShardReport
from masksmith_state.jobs.shards import PlannedTensor
from masksmith_state.roots.directory import is_part_name
from masksmith_wire.digests import PartDigest
from masksmith_wire.masks import MaskInfo, file_header
from masksmith_wire.output_names import MASKS_NAME, RECORD_NAME
from masksmith_wire.pruned_record import totals, update_record, versions

from .work import OutputWork


def finish(work: OutputWork) -> None:
    """Write the files of an output that are not weights, then delete the files that only an unfinished output has.

    The files are the masks, copies of `output.copied_files` and the record. The index, if there is one, is the last of
    `copied_files`, so index and record are written after the files that they name. An unfinished output has a marker
    (`output.marker_location`), a note on each complete file of weights (`FileNote`), and temporary files. The marker is
    deleted first: from then on the output is finished. A worker that is killed earlier leaves all notes, so that
    another one can finish; if it is killed later, `delete_notes` is called again by the next attempt. Two workers may
    finish an output at the same time: the files that they write are the same.

    Raises:
        FileNotFoundError: If another worker has finished the output meanwhile and deleted its notes.
        ReplacedBlobError: If a file of weights has other masks or updated weights than those of the shards' reports.
    """
    output = work.output
    work.results.refresh()
    for file in output.files:
        if work.note(file.name).results != work.results_digest(file):
            raise ReplacedBlobError(file.name)
    reports = [[work.results.report(index) for index in indices] for indices in work.shards_by_tensor]
    hasher = blake3()
    work.write(output.location_of(MASKS_NAME), _masks(work, reports, hasher))
    for file in output.copied_files:
        work.write(output.location_of(file.name), work.read_pieces(file.source, 0, file.bytes))
    record = _record(work, reports, hasher.hexdigest())
    work.write(output.location_of(RECORD_NAME), [json.dumps(record, indent=2).encode() + b"\n"])
    work.delete(output.marker_location)
    delete_notes(work)


def delete_notes(work: OutputWork) -> None:
    """Delete the notes and temporary files that are left in a finished output."""
    for name in work.file_sizes():
        if name.startswith(NOTE_PREFIX) or is_part_name(name):
            work.delete(work.output.location_of(name))


def _masks(work: OutputWork, reports: list[list[ShardReport]], hasher: Any) -> Iterator[bytes]:
    """Yield the masks file in pieces, and update `hasher` with each piece.

    Args:
        work: The output.
        reports: For each tensor, the reports of its shards.
        hasher: A BLAKE3 hasher.
    """
    options = work.plan.options
    infos = {
        tensor.name: MaskInfo(
            shape=tensor.shape,
            pattern=tensor_reports[0].pattern or tensor.pattern or options.pattern,
            ragged=options.ragged,
            axis=options.axis,
            axes=tensor.axes,
            out_parts=tensor.out_parts,
            digests=_mask_digests(work, indices, tensor_reports),
        )
        for tensor, indices, tensor_reports in zip(work.plan.tensors, work.shards_by_tensor, reports, strict=True)
    }
    header = file_header(infos)
    hasher.update(header)
    yield header
    for indices in work.shards_by_tensor:
        for index in indices:
            work.check()
            data = work.results.mask(index)
            hasher.update(data)
            yield data


def _mask_digests(work: OutputWork, indices: list[int], reports: list[ShardReport]) -> list[PartDigest]:
    """Number of rows and digest of each shard's part of a tensor's mask."""
    shards = [work.shards[index] for index in indices]
    return [(shard.last - shard.first, str(report.mask_digest)) for shard, report in zip(shards, reports, strict=True)]


def _record(work: OutputWork, reports: list[list[ShardReport]], masks_digest: str) -> dict[str, Any]:
    """The document `masksmith.json`."""
    output, options = work.output, work.plan.options
    tensors = _tensors(work, reports)
    previous = {} if options.previous is None else {"previous": options.previous}
    return {
        "format": 1,
        "model_type": output.model_type,
        "scores": str(options.scores),
        "update": None if options.update is None else str(options.update),
        "calibration_text": None,
        "versions": versions(),
        "totals": totals(tensors),
        "tensors": tensors,
        "inputs": {file.name: {"bytes": file.bytes, "version": file.source.version} for file in output.files},
        "outputs": {file.name: work.note(file.name).model_dump(exclude={"job", "results"}) for file in output.files}
        | {MASKS_NAME: {"blake3": masks_digest}},
        "copied": [file.name for file in output.copied_files],
        "not_copied": output.names_not_copied,
        "notes": [],  # Remarks about the choice of tensors, which only a prune by the client makes.
        "identity": output.identity,
        **previous,
    }


def _tensors(work: OutputWork, reports: list[list[ShardReport]]) -> list[dict[str, Any]]:
    """The record's documents of all tensors in the output's files; one for a name that is in several files."""
    documents: dict[str, dict[str, Any]] = {}
    for file in work.output.files:
        for entry in work.header(file).tensors.values():
            members = {"name": entry.name, "shape": list(entry.shape), "dtype": entry.dtype, "tied": [], "scale": None}
            number = work.tensor_numbers.get(entry.name)
            more = _DENSE if number is None else _masked(work, work.plan.tensors[number], reports[number])
            documents[entry.name] = members | more
    return list(documents.values())


_DENSE: dict[str, Any] = {
    "axes": None, "out_parts": [], "matrices": 0, "rule": None, "masked": False, "pattern": None, "axis": None,
    "ragged": None, "reason": "it is none of the job's tensors",
}  # fmt: skip
"""Members of the record's document of a tensor that is not masked."""


def _masked(work: OutputWork, tensor: PlannedTensor, reports: list[ShardReport]) -> dict[str, Any]:
    """Members of the record's document of a masked tensor, from the reports of its shards."""
    options = work.plan.options
    layout = tensor.layout or Layout(default_axes(tensor.shape))
    members = certificate(reports)
    del members["total_score"]  # The record of a local prune does not have this member.
    update = members.pop("update")
    change_report = change(reports, math.prod(tensor.shape))
    return {
        "axes": str(layout),
        "out_parts": tensor.out_parts,
        "matrices": layout.count(tensor.shape),
        "rule": tensor.rule,
        "masked": True,
        "pattern": reports[0].pattern or tensor.pattern or options.pattern,
        "axis": options.axis,
        "ragged": options.ragged,
        "reason": None,
        **members,
        "kept": sum(report.kept for report in reports),
        **({} if update is None or options.update is None else {"update": update_record(options.update, update)}),
        **({} if change_report is None else {"change": change_report.model_dump()}),
    }
