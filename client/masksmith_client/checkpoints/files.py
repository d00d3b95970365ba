"""Finds the files of a checkpoint and reads their headers. Pickles are never loaded."""

from __future__ import annotations

from pathlib import Path

from masksmith_client._errors import InputError
from masksmith_wire.headers import Header, HeaderError, read_header
from masksmith_wire.model_files import SINGLE_FILE, ModelFilesError, check_index, weights_name
from masksmith_wire.output_names import INDEX_SUFFIX, PICKLE_SUFFIXES


def find_weights(path: Path) -> Path:
    """Return the `.safetensors` file or the index that a path means: itself, or the only one in a directory.

    Raises:
        InputError: If there is none, several, or something else; for a pickle the message says how to convert it.
    """
    if path.is_dir():
        return _find_in(path)
    if path.suffix in PICKLE_SUFFIXES or path.name.endswith(".bin" + INDEX_SUFFIX):
        raise InputError(pickle_message(path))
    if not path.is_file():
        raise InputError(f"{path} does not exist" if not path.exists() else f"{path} is not a file")
    return path


def read_file_header(path: Path) -> Header:
    """Read the header of a safetensors file.

    Raises:
        InputError: If it cannot be read; the message names the file and says what it is.
    """
    try:
        with path.open("rb") as file:
            return read_header(file)
    except HeaderError as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def pickle_message(path: Path) -> str:
    """Say why a pickle is not read, and how to convert it."""
    return (
        f"{path} is a pickle, which can run code when it is loaded, so masksmith reads only safetensors. Convert it "
        f"once: python -c \"import torch, safetensors.torch as s; s.save_file(torch.load('{path.name}', "
        f"weights_only=True), 'model.safetensors')\""
    )


def _find_in(folder: Path) -> Path:
    names = [path.name for path in folder.iterdir() if path.is_file()]
    try:
        name = weights_name(names)
        if name is not None and name.endswith(INDEX_SUFFIX):
            text = (folder / name).read_text(errors="replace")
            check_index(name, {SINGLE_FILE} if SINGLE_FILE in text else (), names)
    except ModelFilesError as error:
        raise InputError(f"{folder} {error}") from None
    return _refuse_others(folder) if name is None else folder / name


def _refuse_others(folder: Path) -> Path:
    others = sorted(folder.iterdir())
    gguf = next((path for path in others if path.suffix == ".gguf"), None)
    if gguf is not None:
        raise InputError(
            f"{gguf} is a GGUF file, whose weights are quantised; convert it to safetensors first, such as by "
            f"transformers with GgufConfig(dequantize=True)"
        )
    pickles = [path for path in others if path.suffix in PICKLE_SUFFIXES]
    if pickles:
        raise InputError(pickle_message(pickles[0]))
    raise InputError(f"{folder} contains no .safetensors file")
