"""Writes a copy of a checkpoint's directory: it has the same files, but other values in some tensors.

An interrupted run continues after the last file that it finished.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from masksmith_client._errors import InputError
from masksmith_client._version import __version__
from masksmith_wire.headers import TensorEntry
from masksmith_wire.output_names import RECORD_NAME, is_index_name

from .checkpoint import Checkpoint
from .journal import Journal, open_journal
from .other_files import other_files
from .output_folder import (
    changed_files,
    check_output_folder,
    check_space,
    created_folder,
    finish_folder,
    index_digest,
    is_unchanged,
    state_of_files,
)
from .partial_file import PartialFile
from .shard_output import OnBytes, ShardOutput

Pieces = Iterable[bytes | bytearray | memoryview]
"""The bytes of a tensor, in pieces."""

Values = Callable[[str], Pieces | None]
"""Returns the new bytes of a tensor, by its name; None for a tensor that is copied unchanged."""


def is_folder_output(output: Path, model: Path) -> bool:
    """Whether weights are written as a model's directory, and not as one file.

    They are written as a directory in two cases: the output is a directory; or the output may become a directory, and
    the model is a directory or an index.
    """
    is_folder_or_index = os.path.isdir(model) or is_index_name(model.name)
    may_become_folder = str(output) != "-" and output.suffix != ".safetensors" and not os.path.isfile(output)
    return os.path.isdir(output) or (is_folder_or_index and may_become_folder)


def check_copy_output(output: Path, checkpoint: Checkpoint) -> None:
    """Refuse a directory that `write_copy` must not write to, before any work is done.

    Raises:
        InputError: If the output contains a pruned checkpoint, or is refused by `check_output_folder`.
    """
    check_output_folder(output, checkpoint)
    if (output / RECORD_NAME).exists():
        raise InputError(f"{output} contains a pruned checkpoint; name a new or empty directory")


def write_copy(checkpoint: Checkpoint, output: Path, values: Values, digest: str, on_bytes: OnBytes) -> None:
    """Write a copy of a checkpoint, for `from_pretrained` to load.

    Args:
        checkpoint: The checkpoint to copy.
        output: A new or empty directory, or that of an interrupted run of the same call.
        values: Returns the new bytes of a tensor, by its name; None for a tensor that is copied unchanged.
        digest: Identifies the new values: a run with another digest is not continued.
        on_bytes: Called with the number of bytes of the input that were processed since the last call.

    Raises:
        InputError: If the output contains a pruned checkpoint or other files, is the unfinished output of another run,
            or is refused by `check_output_folder` for another reason; or if the input has changed since the output was
            begun.
        OSError: If the disk has too little space, or a file cannot be written; the same call later continues after the
            last finished file.
    """
    check_copy_output(output, checkpoint)
    files = state_of_files(checkpoint)
    identity = {"version": __version__, "weights": files, "index": index_digest(checkpoint), "values": digest}
    with created_folder(output), open_journal(output, identity) as journal:
        finished_names = _finished_names(checkpoint, output, journal)
        remaining_files = [file for file in checkpoint.headers if file.name not in finished_names]
        total_bytes = sum(header.file_bytes for header in checkpoint.headers.values())
        remaining_bytes = sum(checkpoint.headers[file].file_bytes for file in remaining_files)
        on_bytes(total_bytes - remaining_bytes)
        check_space(output, remaining_bytes)
        for file in remaining_files:
            digests = _write_file(checkpoint, file, output, values, on_bytes, files)
            journal.write({"file": file.name, **digests}, durable=True)
        finish_folder(checkpoint, output, other_files(checkpoint, output))


def _finished_names(checkpoint: Checkpoint, output: Path, journal: Journal) -> set[str]:
    """Return the names of the files that an earlier run finished and that have not changed since.

    Raises:
        InputError: If the input file of a finished file has changed since.
    """
    lines = {line["file"]: line for line in journal.lines if "output" in line}
    changed_inputs = changed_files(checkpoint.folder, {name: line["input"] for name, line in lines.items()})
    if changed_inputs:
        raise _changed_input_error(changed_inputs[0], output)
    return {name for name, line in lines.items() if not changed_files(output, {name: line["output"]})}


def _changed_input_error(file: object, output: Path) -> InputError:
    return InputError(f"{file} has changed since {output} was begun; remove that directory and repeat the command")


def _write_file(
    checkpoint: Checkpoint,
    file: Path,
    output: Path,
    values: Values,
    on_bytes: OnBytes,
    files: Mapping[str, list[Any]],
) -> Mapping[str, str]:
    """Write an output file; returns the digests of the input file and of the output file.

    Raises:
        InputError: If the input file has changed since `state_of_files` returned `files`.
    """
    header = checkpoint.headers[file]
    with PartialFile(output / file.name) as part, file.open("rb", buffering=0) as source:
        part.restart()
        shard = ShardOutput(source, file, part, on_bytes)
        for entry in sorted(header.tensors.values(), key=lambda entry: (entry.start, entry.stop)):
            pieces = _pieces(checkpoint, file, entry, values)
            if pieces is not None:
                shard.write_values(entry, pieces)
        shard.copy_to(header.file_bytes)
        # If the file was replaced during the copy, `values` may have read another version than the one copied here.
        if not is_unchanged(file, files):
            raise _changed_input_error(file, output)
        part.finish()
        return {"input": shard.input_digest, "output": part.digest}


def _pieces(checkpoint: Checkpoint, file: Path, entry: TensorEntry, values: Values) -> Pieces | None:
    """Return the bytes to write for an entry; None if the bytes of the input file are copied.

    If the tensor is copied unchanged, but the index names another file for it, its bytes are read from that file.
    """
    tensor = checkpoint.tensors.get(entry.name)
    if tensor is None:
        return None
    pieces = values(entry.name)
    return tensor.pieces() if pieces is None and tensor.file != file else pieces
