"""The paths that a command writes: checks before any work, and the output of updated weights."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from masksmith_client._errors import InputError
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.config import CONFIG_NAME
from masksmith_client.checkpoints.copy import check_copy_output, is_folder_output, write_copy
from masksmith_client.checkpoints.other_files import model_files
from masksmith_client.results.atomic_write import refuse_link_to_blob
from masksmith_client.results.tensor_file_names import check_tensor_file_name
from masksmith_client.results.updated_weights import UpdatedWeights
from masksmith_wire.model_files import SINGLE_FILE, ModelFilesError, weights_name
from masksmith_wire.output_names import is_index_name

from .standard_output import check_standard_output, is_standard_output, written_to


def check_output(output: Path, *, as_json: bool | None = None) -> None:
    """Check, before any work, that a file can be written.

    Args:
        output: The file to write. For a command that can write to standard output, `-` is standard output; for another
            command it is a file's name.
        as_json: None for a command that cannot write the output to standard output; for other commands, whether the
            command also prints its report there, as JSON.

    Raises:
        InputError: If the file, or standard output, cannot be written.
    """
    if as_json is not None and is_standard_output(output):
        return check_standard_output(as_json=as_json)
    refuse_link_to_blob(output)
    output = Path(os.path.realpath(output))
    folder = output.parent
    if output.is_dir():
        raise InputError(f"{output} is a directory; name the file to write")
    if output.exists() and not output.is_file():
        raise InputError(f"{output} is a device or a pipe, not a file; name the file to write")
    if not folder.is_dir():
        raise InputError(f"{output} cannot be written: the directory {folder} does not exist")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{output} cannot be written: no permission in {folder}")
    return None


def check_tensor_output(output: Path, *, as_json: bool | None = None) -> None:
    """Check, before any work, that masks or weights can be written to a file; see `check_output` for the arguments.

    Raises:
        InputError: If the name has the suffix of another format, or for a reason of `check_output`.
    """
    check_tensor_file_name(output)
    check_output(output, as_json=as_json)


def check_not_an_input(output: Path, inputs: Iterable[object] = (), *, model: Path | None = None) -> None:
    """Refuse to overwrite a file that is read.

    Args:
        output: The file to write.
        inputs: Arguments of the command; only those that are paths of existing files are compared with the output.
        model: A model that the command reads; its files are compared with the output, too, except those that masksmith
            adds to a model's directory.

    Raises:
        InputError: If the output is one of these files, under the same path or another one, such as a link.
    """
    if is_standard_output(output) or not output.is_file():
        return
    paths = [Path(argument) for argument in inputs if isinstance(argument, (str, os.PathLike))]
    if model is not None and model.exists():
        paths += [model, *model_files(Checkpoint.open(model))]
    for path in paths:
        if path.is_file() and output.samefile(path):
            raise InputError(f"{output} is an input, {path}; name another file")


def check_model_is_still_found(output: Path, model: Path) -> None:
    """Refuse a new file in a model's directory if it would be read as the model's weights, or make them ambiguous.

    A model that is named by its only file is still found by this name, so nothing is refused then.

    Raises:
        InputError: If the output is such a file.
    """
    is_folder = os.path.isdir(model)  # False for a name that is too long, for which `pathlib` raises an error.
    folder = model if is_folder else model.parent
    is_by_file = not (is_folder or is_index_name(model.name))
    if is_by_file or output.exists() or os.path.realpath(output.parent) != os.path.realpath(folder):
        return
    names = [path.name for path in folder.iterdir() if path.is_file()]
    try:
        weights = weights_name(names)
    except ModelFilesError:  # The model is named by one of several indexes.
        return
    try:
        is_found = weights_name([*names, output.name]) == weights
    except ModelFilesError:
        is_found = False
    if weights is not None and (not is_found or (is_index_name(weights) and output.name == SINGLE_FILE)):
        raise InputError(
            f"{output} would count as weights of the model in {folder}, whose weights are in {weights}; name a file in "
            f"another directory"
        )


def check_download_output(output: Path) -> None:
    """Check, before any work, that masks or updated weights of a job, whose model is not known, can be written.

    Raises:
        InputError: If the output is in a directory with the config of a model, and is one of the model's files or is
            refused by `check_model_is_still_found`; or for a reason of `check_tensor_output`.
    """
    check_tensor_output(output)
    folder = output.parent
    if (folder / CONFIG_NAME).is_file():
        check_model_is_still_found(output, folder)
        if any(path.is_file() and output.is_file() and output.samefile(path) for path in _files_of_model(folder)):
            raise InputError(f"{output} is a file of the model in {folder}; name another file")


def _files_of_model(folder: Path) -> list[Path]:
    """Return the files of the model in a directory; empty if its weights are missing, ambiguous or unreadable."""
    try:
        return model_files(Checkpoint.open(folder))
    except InputError:
        return []


def check_weights_output(output: Path, model: Path, *, as_json: bool) -> None:
    """Check, before any work, that updated weights can be written to a file, to `-`, or to a model's directory.

    Raises:
        InputError: If the weights cannot be written, or if `check_model_is_still_found` refuses the file.
    """
    if is_folder_output(output, model):
        check_tensor_file_name(output)
        return check_copy_output(output, Checkpoint.open(model))
    check_tensor_output(output, as_json=as_json)
    return check_model_is_still_found(output, model)


@contextmanager
def weights_written_to(output: Path, model: Path) -> Iterator[Path]:
    """Yield the path of the file to write updated weights to.

    For `-` and for a directory this file is temporary. If the caller wrote it and no error is raised, it is used at the
    end: for `-`, it is copied to standard output; for a directory, a copy of the model is written, with the updated
    weights.

    Raises:
        InputError: For a directory, if the model has weights with scales, or for a reason of `write_copy`.
    """
    if not is_folder_output(output, model):
        with written_to(output) as file:
            yield file
        return
    checkpoint = Checkpoint.open(model)
    if checkpoint.scales:
        raise InputError(
            f"{model} has weights of 8-bit floats with scales: write updated weights to a .safetensors file"
        )
    # The temporary folder is on the same disk as the output: in the output's nearest parent that exists. `write_copy`
    # creates the others.
    parent = next(path for path in output.absolute().parents if path.exists())
    with TemporaryDirectory(prefix=".masksmith-", dir=parent) as folder:
        file = Path(folder) / "weights.safetensors"
        yield file
        if file.exists():
            with file.open("rb") as source:
                weights = UpdatedWeights(source)
                write_copy(
                    checkpoint,
                    output,
                    lambda name: [weights.data(name)] if name in weights else None,
                    weights.digest(),
                    on_bytes=lambda count: None,
                )
