"""The directory that a checkpoint is written to: new, empty, or from an earlier run of the same command."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from masksmith._atomic_write import sync
from masksmith_client._errors import InputError
from masksmith_client._version import __version__
from masksmith_client.results.atomic_write import atomic_write
from masksmith_client.submission.statistics import AuxiliaryTensors
from masksmith_wire.json_text import parse_json
from masksmith_wire.output_names import BLOCKS_NAME, JOURNAL_NAME, MASKS_NAME, OWN_FILES, RECORD_NAME
from masksmith_wire.quantities import size_text

from .checkpoint import Checkpoint
from .choice import Choice
from .files import read_file_header
from .other_files import OtherFiles, other_files
from .partial_file import named_errors
from .prune_method import PruneMethod
from .tensors import read_range


def identity(
    checkpoint: Checkpoint, choice: Choice, method: PruneMethod, statistics: AuxiliaryTensors
) -> dict[str, Any]:
    """Return what identifies a run: masksmith's version, the input, and what is done with each tensor."""
    return {
        "version": __version__,
        "weights": state_of_files(checkpoint),
        "index": index_digest(checkpoint),
        "config": _digest(checkpoint.config),
        "calibration": statistics.digest() if method.text is None else method.text.document(),
        "options": _digest(
            [
                str(method.scores),
                str(method.update),
                [tensor.document() for tensor in choice.tensors.values()],
                *([] if method.text is None else [method.blocks.document()]),
            ]
        ),
    }


def state_of_files(checkpoint: Checkpoint) -> dict[str, list[Any]]:
    """Return size, time of the last change, and digest of the header of each file of weights, by the file's name.

    Raises:
        InputError: If a file was replaced by one with another header since the checkpoint was opened.
    """
    files: dict[str, list[Any]] = {}
    for file, header in checkpoint.headers.items():
        state = file.stat()
        # The header is read after `stat`, so that `is_unchanged` detects a file that is replaced in between or later.
        if read_file_header(file) != header:
            raise InputError(f"{file} has changed since the command began; repeat it")
        files[file.name] = [state.st_size, state.st_mtime_ns, _digest(sorted(map(repr, header.tensors.values())))]
    return files


def index_digest(checkpoint: Checkpoint) -> str:
    """Return a digest of the order of the files of weights, the order of the tensors, and the file of each tensor.

    Masks are written in the order of the files; a tensor in two files is read from the one in the index.
    """
    places = [[name, tensor.file.name] for name, tensor in checkpoint.tensors.items()]
    return _digest([[file.name for file in checkpoint.headers], places])


def is_unchanged(file: Path, files: Mapping[str, list[Any]]) -> bool:
    """Whether a file of weights has the size and the time of the last change that `state_of_files` returned for it."""
    state = file.stat()
    return files[file.name][:2] == [state.st_size, state.st_mtime_ns]


@contextmanager
def created_folder(folder: Path) -> Iterator[None]:
    """Create a directory, unless it exists; if an error leaves a new directory empty, remove it again."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise


def finish_folder(checkpoint: Checkpoint, output: Path, others: OtherFiles) -> None:
    """Copy the model's other files, and then the index of a sharded model; delete the folder of blocks and the journal.

    The index is copied last: without it, a sharded model is not loaded.
    """
    for path in others.copied:
        (output / path).parent.mkdir(parents=True, exist_ok=True)
        _copy(checkpoint.folder / path, output / path)
    if checkpoint.is_sharded:
        _copy(checkpoint.weights, output / checkpoint.weights.name)
    shutil.rmtree(output / BLOCKS_NAME, ignore_errors=True)
    os.unlink(output / JOURNAL_NAME)
    sync(output)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as file, atomic_write(target) as copy:
        shutil.copyfileobj(file, copy, 2**20)


def _digest(value: Any) -> str:
    return blake3(json.dumps(value, sort_keys=True).encode()).hexdigest()


def check_output_folder(output: Path, checkpoint: Checkpoint) -> None:
    """Refuse a directory that this command must not write to, before any work is done.

    Raises:
        InputError: If `output` is standard output, a file, a device, a pipe or a broken link; if it is the model's
            directory; if it cannot be looked into or written; if it has files, but neither a journal nor a record of
            masksmith; if a file of weights is hidden, or has a name that masksmith uses in outputs; or if a file to
            copy is a broken link.
    """
    for file in checkpoint.headers:
        if file.name in OWN_FILES:
            raise InputError(f"{file} has a name that masksmith uses in outputs; rename it")
        if file.name.startswith("."):
            raise InputError(f"{file} is hidden, but a hidden file in an output is an unfinished one; rename it")
    if str(output) == "-":
        raise InputError("a checkpoint is a directory and cannot go to standard output; name a directory")
    try:
        os.lstat(output)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror}") from None
    if output.is_symlink() and not os.path.exists(output):
        raise InputError(f"{output} is a link to {output.readlink()}, which does not exist")
    if output.exists() and not output.is_dir():
        kind = "a file" if output.is_file() else "a device or a pipe"
        raise InputError(f"{output} is {kind}; name a new or empty directory")
    if output.resolve() == checkpoint.folder.resolve():
        raise InputError(f"{output} is the model itself; name another directory")
    folder = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{output} cannot be written: no permission in {folder}")
    names = sorted(path.name for path in output.iterdir()) if output.exists() else []
    if names and not {JOURNAL_NAME, RECORD_NAME} & set(names):
        raise InputError(f"{output} contains other files, such as {names[0]!r}; name a new or empty directory")
    for path in other_files(checkpoint, output).broken_links:
        link = checkpoint.folder / path
        reason = "is no regular file" if link.exists() else "does not exist"
        raise InputError(
            f"{link} is a link to {link.readlink()}, which {reason}; download the file, or remove the link"
        )


def finished_record(
    output: Path, checkpoint: Checkpoint, expected_identity: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the record of an output that an earlier run of the same command finished; None if there is none.

    Raises:
        InputError: If another command wrote the output; if a file that the run wrote, or one that it read, is missing
            or has changed since; or if a copied file is missing.
    """
    path = output / RECORD_NAME
    if (output / JOURNAL_NAME).exists() or not path.exists():
        return None
    try:
        record = parse_json(path.read_bytes())
    except ValueError:
        record = None
    if not isinstance(record, dict) or record.get("identity") != expected_identity:
        raise InputError(f"{output} contains the result of another command; name a new or empty directory")
    changed_paths = changed_files(output, _digests(record["outputs"])) + _missing_copies(output, record)
    if changed_paths:
        raise InputError(f"{changed_paths[0]} is missing, or not as prune wrote it; remove {output} and prune again")
    if changed_paths := changed_files(checkpoint.folder, _digests(record["inputs"])):
        raise InputError(f"{changed_paths[0]} has changed since {output} was made of it; name a new or empty directory")
    return record


def changed_files(folder: Path, digests: Mapping[str, str]) -> list[str]:
    """Return the paths of the files that are missing or have changed.

    Args:
        folder: The directory of the files.
        digests: The expected BLAKE3 digest of each file, by the file's name.
    """
    return [str(folder / name) for name, digest in digests.items() if not _has_digest(folder / name, digest)]


def _has_digest(path: Path, digest: str) -> bool:
    return path.is_file() and blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest() == digest


def _missing_copies(output: Path, record: Mapping[str, Any]) -> list[str]:
    """Return the paths of the files that were copied into an output and are missing there."""
    return [str(output / name) for name in record["copied"] if not (output / name).is_file()]


def _digests(files: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the digests in the member `inputs` or `outputs` of a record, by the file's name."""
    return {name: file["blake3"] for name, file in files.items()}


@dataclass(frozen=True, slots=True)
class RecordedMasks:
    """The masks of a pruned checkpoint's directory, according to its record.

    Attributes:
        masks_file: Path of the masks file.
        names: Names of the masks.
        changed_files: Paths of output files that are missing, or were changed since they were written.
        missing_copies: Paths of files that were copied from the model's directory, and are missing.
    """

    masks_file: Path
    names: list[str]
    changed_files: list[str]
    missing_copies: list[str]


def recorded_masks(folder: Path) -> RecordedMasks | None:
    """Return what the record of a pruned checkpoint's directory says about its masks; None if there is no record.

    Raises:
        InputError: If prune has not finished the directory; or if there is a record that cannot be read, or one without
            a masks file.
    """
    if (folder / JOURNAL_NAME).exists():
        raise InputError(f"{folder} is the unfinished output of prune; repeat that command")
    path, masks_file = folder / RECORD_NAME, folder / MASKS_NAME
    if not path.exists():
        return None
    try:
        record = parse_json(path.read_bytes())
        names = [tensor["name"] for tensor in record["tensors"] if tensor["masked"]]
        digests = _digests(record["outputs"])
        missing_copies = _missing_copies(folder, record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{path} is not the record of a pruned checkpoint; prune it again, or pass --pattern"
        ) from None
    if not masks_file.is_file():
        raise InputError(f"{masks_file} is missing, but {RECORD_NAME} exists; prune it again, or pass --pattern")
    return RecordedMasks(masks_file, names, changed_files(folder, digests), missing_copies)


def prefix_digest(file: Path, stop: int) -> str:
    """Return the BLAKE3 digest of a file's first `stop` bytes, in hex."""
    hasher = blake3()
    with file.open("rb", buffering=0) as source:
        for piece in read_range(source, 0, stop, f"{file} ended early"):
            hasher.update(piece)
    return str(hasher.hexdigest())


def check_space(folder: Path, needed_bytes: int, purpose: str = "") -> None:
    """Check that the bytes that are to be written fit on the disk of a directory.

    Args:
        folder: The directory; it must exist.
        needed_bytes: Number of bytes that are to be written.
        purpose: What the bytes are for; it ends the message.

    Raises:
        OSError: If they do not fit; the error names the directory.
    """
    with named_errors(folder):
        free_bytes = shutil.disk_usage(folder).free
        if free_bytes < needed_bytes:
            message = f"no space: {size_text(needed_bytes)} are to be written, and {size_text(free_bytes)} are free"
            raise OSError(errno.ENOSPC, f"{message}: {purpose}" if purpose else message)
