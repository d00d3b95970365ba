"""Finds the weights of a checkpoint, and reads headers and JSON files. Pickles are never loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from masksmith.layouts.foreign_files import not_json_reason
from masksmith_client._errors import InputError
from masksmith_wire.headers import Header, HeaderError, read_header
from masksmith_wire.json_text import DuplicateMemberError, parse_json
from masksmith_wire.model_files import SINGLE_FILE, ModelFilesError, check_index, weights_name
from masksmith_wire.output_names import PICKLE_SUFFIXES, is_index_name, without_index_suffix

from .conversion_advice import no_weights_message, pickle_message


def find_weights(path: Path) -> Path:
    """Return a checkpoint's `.safetensors` file or index: the path itself, or, for a directory, the one in it.

    An index in a directory has priority over its `.safetensors` files. The path of a file is returned as it is, but
    refused if the file's name is that of a pickle or of an index of pickles.

    Raises:
        InputError: If the path does not exist, or is neither a file nor a directory; if a directory has no weights
            file, or several and their names do not say which one to read; if a part of the weights lacks its index; if
            an index beside a `model.safetensors` cannot be read, or does not list this file; or if the weights have
            another format. For a pickle the message says how to convert it.
    """
    # The functions of `os.path` return False for a name that is too long; those of `pathlib` raise an error.
    if os.path.isdir(path):
        return _find_in(path)
    if path.suffix in PICKLE_SUFFIXES or without_index_suffix(path.name).endswith(".bin"):
        raise InputError(pickle_message(path))
    if not os.path.isfile(path):
        raise InputError(
            f"{path} {'is not a file' if os.path.exists(path) else 'does not exist'}{_broken_link_text(path)}"
        )
    return path


def read_file_header(path: Path) -> Header:
    """Read the header of a safetensors file.

    Raises:
        InputError: If it cannot be read; the message names the file and the reason.
    """
    _check_kind(path)
    try:
        with path.open("rb") as file:
            return read_header(file)
    except HeaderError as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}{_broken_link_text(path)}") from None


def read_json(path: Path) -> Any:
    """Read a JSON file of a checkpoint.

    Raises:
        InputError: If it cannot be read; if it is not JSON (the message says what it is, such as a Git LFS pointer); or
            if an object in it has two members of the same name.
    """
    _check_kind(path)
    content = b""
    try:
        content = path.read_bytes()
        return parse_json(content)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}{_broken_link_text(path)}") from None
    except DuplicateMemberError as error:
        raise InputError(f"{path}: {error}") from None
    except ValueError:
        raise InputError(f"{path} is {not_json_reason(content)}") from None


def read_weight_map(index: Path) -> dict[str, str]:
    """Return the name of each tensor's file, by the tensor's name, as an index lists them.

    Raises:
        InputError: If the index cannot be read, is not a checkpoint's index, or lists no tensor.
    """
    document = read_json(index)
    weight_map = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weight_map, dict):
        raise InputError(f"{index} is not a checkpoint index: it has no 'weight_map' of names to files")
    if not weight_map:
        raise InputError(f"{index} lists no tensor: download it again")
    return {name: str(file) for name, file in weight_map.items()}


def is_listed(file: Path) -> bool:
    """Whether an index in the file's directory lists the file; True also if such an index cannot be read."""
    return any(
        _may_list(index, file.name)
        for index in file.parent.glob("*.json")
        if is_index_name(index.name) and index.is_file()
    )


def _may_list(index: Path, name: str) -> bool:
    try:
        document = read_json(index)
    except InputError:
        return True
    weight_map = document.get("weight_map") if isinstance(document, dict) else None
    return isinstance(weight_map, dict) and name in weight_map.values()


def _check_kind(path: Path) -> None:
    """Refuse a path to a pipe, a socket or a device: a process that opens or reads it may wait without end.

    Raises:
        InputError: If the path leads to one of these.
    """
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise InputError(f"{path} is not a regular file but a pipe, a socket or a device")


def _broken_link_text(path: Path) -> str:
    """Name the target of a link whose target was moved or deleted; return an empty text for any other path."""
    return f"; it is a link to {path.readlink()}" if os.path.islink(path) and not os.path.exists(path) else ""


def _find_in(folder: Path) -> Path:
    try:
        # A broken link counts as a file, so that the error of the read names its target.
        names = [path.name for path in folder.iterdir() if path.is_file() or _broken_link_text(path)]
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from None
    try:
        name = weights_name(names)
        if name is not None and is_index_name(name) and SINGLE_FILE in names:
            check_index(name, read_weight_map(folder / name).values(), names)
    except ModelFilesError as error:
        raise InputError(f"{folder} {error}") from None
    if name is None:
        raise InputError(no_weights_message(folder))
    return folder / name
