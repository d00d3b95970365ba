"""The directory that a pruned checkpoint is written to: new, empty, or begun by the same command."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from blake3 import blake3

from masksmith_client._errors import InputError
from masksmith_client._version import __version__
from masksmith_client.results.atomic_write import atomic_write
from masksmith_client.submission.statistics import AuxiliaryTensors

from .checkpoint import Checkpoint
from .choice import Choice
from .journal import JOURNAL_NAME
from .other_files import OtherFiles
from .partial_file import naming, sync_folder
from .prune_method import PruneMethod

RECORD_NAME = "masksmith.json"
MASKS_NAME = "masks.safetensors"


def identity(
    checkpoint: Checkpoint, choice: Choice, method: PruneMethod, statistics: AuxiliaryTensors
) -> dict[str, Any]:
    """Return what an output belongs to: masksmith's version, its input, and what is done with each tensor."""
    return {
        "version": __version__,
        "weights": state_of_files(checkpoint),
        "config": _digest(checkpoint.config),
        "calibration": statistics.digest() if method.text is None else method.text.document(),
        "options": _digest(
            [str(method.scores), str(method.update), [tensor.document() for tensor in choice.tensors.values()]]
        ),
    }


def state_of_files(checkpoint: Checkpoint) -> dict[str, list[Any]]:
    """Return size, time of change and digest of the header of each file of weights."""
    files: dict[str, list[Any]] = {}
    for file, header in checkpoint.headers.items():
        state = file.stat()
        files[file.name] = [state.st_size, state.st_mtime_ns, _digest(sorted(map(repr, header.tensors.values())))]
    return files


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make a directory; it is removed again if an error leaves it empty."""
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
    """Copy the files beside the weights, and last the index: then the directory can be loaded."""
    for path in others.copied:
        (output / path).parent.mkdir(parents=True, exist_ok=True)
        _copy(checkpoint.folder / path, output / path)
    if checkpoint.is_sharded:
        _copy(checkpoint.weights, output / checkpoint.weights.name)
    os.unlink(output / JOURNAL_NAME)
    sync_folder(output)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as file, atomic_write(target) as copy:
        shutil.copyfileobj(file, copy, 2**20)


def _digest(value: Any) -> str:
    return blake3(json.dumps(value, sort_keys=True).encode()).hexdigest()


def check_output_folder(output: Path, checkpoint: Checkpoint) -> None:
    """Refuse an output that is no directory of ours, before any work is done.

    Raises:
        InputError: If it is a file, a device or a pipe, the model itself, or a directory that holds something else.
    """
    if str(output) == "-":
        raise InputError("a checkpoint is a directory, which standard output does not take; name a directory")
    if output.is_symlink() and not output.exists():
        raise InputError(f"{output} is a link to {output.readlink()}, which does not exist")
    if output.exists() and not output.is_dir():
        kind = "a file" if output.is_file() else "a device or a pipe"
        raise InputError(f"{output} is {kind}; name a new or empty directory")
    if output.resolve() == checkpoint.folder.resolve():
        raise InputError(f"{output} is the model itself; name another directory")
    names = sorted(path.name for path in output.iterdir()) if output.exists() else []
    if names and not {JOURNAL_NAME, RECORD_NAME} & set(names):
        raise InputError(f"{output} contains something else ({names[0]}); name a new or empty directory")


def finished_record(output: Path, expected: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the record of an output that an earlier run of the same command finished; None if there is none.

    Raises:
        InputError: If another command finished it.
    """
    path = output / RECORD_NAME
    if (output / JOURNAL_NAME).exists() or not path.exists():
        return None
    try:
        record = json.loads(path.read_bytes())
    except ValueError:
        record = None
    if not isinstance(record, dict) or record.get("identity") != expected:
        raise InputError(f"{output} contains the result of another command; name a new or empty directory")
    return record


def recorded_masks(folder: Path) -> tuple[Path, list[str]] | None:
    """Return the masks file of a pruned checkpoint's directory and the names of its masks; None if it has no record.

    Raises:
        InputError: If the directory is unfinished, its record cannot be read, or it has no masks file.
    """
    if (folder / JOURNAL_NAME).exists():
        raise InputError(f"{folder} is the unfinished output of prune; repeat that command")
    path, masks = folder / RECORD_NAME, folder / MASKS_NAME
    if not path.exists():
        return None
    try:
        names = [tensor["name"] for tensor in json.loads(path.read_bytes())["tensors"] if tensor["masked"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{path} is not the record of a pruned checkpoint; prune it again, or pass --pattern"
        ) from None
    if not masks.is_file():
        raise InputError(f"{masks} is missing, which {RECORD_NAME} belongs to; prune it again, or pass --pattern")
    return masks, names


def check_space(output: Path, needed: int) -> None:
    """Refuse to begin what does not fit on the disk.

    Raises:
        OSError: Naming the directory.
    """
    with naming(output):
        free = shutil.disk_usage(output).free
        if free < needed:
            raise OSError(28, f"no space: {needed} bytes are to be written, and {free} are free")
