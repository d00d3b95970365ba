"""Reads headers and config of a model that a reference names: a safetensors file, an index or a directory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from masksmith.layouts.foreign_files import not_json_reason, server_error_reason
from masksmith_service.bounds.table import cost
from masksmith_service.errors import RequestError
from masksmith_service.middleware.json_bodies import depth
from masksmith_service.resources import State
from masksmith_service.uploads.header_checks import check_tensor_count
from masksmith_service.uploads.inspector import SMALL_HEADER_BYTES
from masksmith_state.errors import InvalidLocationError
from masksmith_state.roots.root import FileState
from masksmith_wire.errors import Code
from masksmith_wire.headers import Header
from masksmith_wire.json_text import DuplicateMemberError, parse_json
from masksmith_wire.model_files import (
    WEIGHTS_SUFFIX,
    ModelFilesError,
    check_index,
    is_weights_index,
    no_weights_reason,
    weights_name,
)
from masksmith_wire.references import ListedTensor, ModelListing

from .access import LocatedPath, reference_not_found_error

CONFIG_NAME = "config.json"
MAX_FILES = 1000
"""Maximum number of a model's files of weights."""


@dataclass(frozen=True)
class Model:
    """A model in a root.

    Attributes:
        folder: Its directory; for a single file, the directory of this file.
        files: Its files of weights by name, each with its state and header.
        weight_map: Name of the file that holds each tensor, by the tensor's name. For a tensor in several files, it is
            the file that the model's index names. Tensors that the index does not list are included, since
            `from_pretrained` loads them.
        index: Name of the model's index; None if it has none.
        sizes: Sizes of all files below its directory, by path; empty if the reference names a safetensors file.
        config: Its `config.json`; None if it has none, or the reference names a safetensors file.
    """

    folder: LocatedPath
    files: Mapping[str, tuple[FileState, Header]]
    weight_map: Mapping[str, str]
    index: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    config: dict[str, Any] | None = None

    @property
    def duplicates(self) -> dict[str, dict[str, str]]:
        """By file, the tensors in it that the index assigns to another file, each with that other file's name."""
        repeated = {
            file: {name: self.weight_map[name] for name in header.tensors if self.weight_map.get(name, file) != file}
            for file, (_, header) in self.files.items()
        }
        return {file: tensors for file, tensors in repeated.items() if tensors}

    def listing(self, location: str) -> ModelListing:
        """Build the document that lists the model's tensors; `location` is the reference in the client's request."""
        tensors = []
        for name, file in self.weight_map.items():
            header = self.files[file][1]
            entry = header.tensors[name]
            tensors.append(
                ListedTensor(
                    name=name,
                    dtype=entry.dtype,
                    shape=list(entry.shape),
                    file=self.folder.child(file).location,
                    format=header.metadata.get("format", ""),
                )
            )
        return ModelListing(location=location, tensors=tensors, config=self.config)


class ModelReader:
    """Reads models within the bounds of a request.

    Args:
        state: Resources of the application.
        reserve_memory: Reserves a number of bytes of memory for the request.
    """

    def __init__(self, state: State, reserve_memory: Callable[[int], None]) -> None:
        self._settings, self._reserve_memory = state.settings, reserve_memory
        self._total_header_bytes = 0
        self._headers: dict[str, tuple[FileState, Header]] = {}

    def state_and_header(self, file: LocatedPath) -> tuple[FileState, Header]:
        """Return the state and header of a file, which are read once for each request.

        Raises:
            RequestError: If all headers together are too large; and as `LocatedPath.read_header` does.
        """
        if file.location in self._headers:
            return self._headers[file.location]
        self._headers[file.location] = file.read_header(self._settings, self._reserve_header)
        return self._headers[file.location]

    def _reserve_header(self, header_bytes: int) -> None:
        """Count a header, and reserve memory for it; called before the header is read."""
        limit = self._settings.max_header_bytes
        self._total_header_bytes += header_bytes
        if self._total_header_bytes > limit:
            detail = f"the headers of all files are larger than max_header_bytes = {limit}; name fewer in a job"
            raise RequestError(Code.HEADER_TOO_LARGE, detail, limit=limit)
        if header_bytes > SMALL_HEADER_BYTES:
            self._reserve_memory(cost("header") * header_bytes)

    def read(self, target: LocatedPath) -> Model:
        """Read the model that a reference names.

        Raises:
            RequestError: If it names no file or directory, the directory has no weights or several models, a JSON file
                is invalid, the index and its files contradict each other, or the model is beyond a bound; and as
                `state_and_header` does.
        """
        folder, _, name = target.path.rpartition("/")
        if is_weights_index(name):
            weight_map = self._weight_map(target)
            return self._read_indexed(LocatedPath(target.root, folder), name, weight_map, target.root.list(folder))
        if name.endswith(WEIGHTS_SUFFIX):
            files = {name: self.state_and_header(target)}
            return Model(LocatedPath(target.root, folder), files, dict.fromkeys(files[name][1].tensors, name))
        sizes = target.root.list(target.path)
        return self._read_folder(target, sizes)

    def _read_folder(self, folder: LocatedPath, sizes: Mapping[str, int]) -> Model:
        if not sizes:
            raise _no_model(folder)
        top = [name for name in sizes if "/" not in name]
        try:
            name = weights_name(top)
            if name is None:
                raise ModelFilesError(no_weights_reason(sizes))
            if is_weights_index(name):
                weight_map = self._weight_map(folder.child(name))
                check_index(name, weight_map.values(), top)
                return self._read_indexed(folder, name, weight_map, sizes)
        except ModelFilesError as error:
            raise _invalid(folder, f"the directory {error}") from None
        files = {name: self.state_and_header(folder.child(name))}
        return Model(
            folder, files, dict.fromkeys(files[name][1].tensors, name), None, sizes, self._config(folder, sizes)
        )

    def _weight_map(self, index: LocatedPath) -> dict[str, str]:
        """Read an index: the name of the file that holds each tensor, by the tensor's name."""
        document = self._read_json(index)
        weight_map = document.get("weight_map") if isinstance(document, dict) else None
        if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
            raise _invalid(index, "it is not an index of a checkpoint: it has no 'weight_map' of names to files")
        names = list(dict.fromkeys(weight_map.values()))
        check_tensor_count(len(weight_map), self._settings.max_tensors, f"the index {index.location!r}")
        if len(names) > MAX_FILES:
            raise _invalid(index, f"it lists {len(names)} files, at most {MAX_FILES} are read; merge some of them")
        invalid = next(
            (file for file in names if "/" in file or not file.endswith(WEIGHTS_SUFFIX) or file.startswith(".")), None
        )
        if invalid is not None:
            raise _invalid(index, f"it lists {invalid[:200]!r}, which is not a .safetensors file of the same directory")
        return weight_map

    def _read_indexed(
        self, folder: LocatedPath, name: str, weight_map: Mapping[str, str], sizes: Mapping[str, int]
    ) -> Model:
        index = folder.child(name)
        files = {file: self.state_and_header(folder.child(file)) for file in dict.fromkeys(weight_map.values())}
        for tensor, file in weight_map.items():
            if tensor not in files[file][1].tensors:
                raise _invalid(index, f"it lists {tensor[:200]!r} in {file}, which does not contain it")
        _check_duplicates(index, files, weight_map)
        file_of = dict(weight_map)
        for file, (_, header) in files.items():
            for tensor in header.tensors:
                file_of.setdefault(tensor, file)
        check_tensor_count(len(file_of), self._settings.max_tensors, f"the model {folder.location!r}")
        return Model(folder, files, file_of, name, sizes, self._config(folder, sizes))

    def _config(self, folder: LocatedPath, sizes: Mapping[str, int]) -> dict[str, Any] | None:
        if CONFIG_NAME not in sizes:
            return None
        config = self._read_json(folder.child(CONFIG_NAME))
        if not isinstance(config, dict):
            raise _invalid(folder.child(CONFIG_NAME), "it is not a JSON object")
        if (error := server_error_reason(config)) is not None:
            raise _invalid(folder.child(CONFIG_NAME), f"it is {error}")
        return config

    def _reserve_document(self, size: int) -> None:
        """Reserve memory for a JSON file; called before the file is read."""
        self._reserve_memory(cost("document") * size)

    def _read_json(self, file: LocatedPath) -> Any:
        try:
            data = file.root.get(file.path, self._settings.max_document_bytes, self._reserve_document)
        except FileNotFoundError:
            raise reference_not_found_error(file.location) from None
        if depth(data) > self._settings.max_document_depth:
            raise _invalid(file, f"it is nested deeper than max_document_depth = {self._settings.max_document_depth}")
        try:
            document = parse_json(data)
            # Unpaired surrogates are JSON, but no response can contain them.
            json.dumps(document, ensure_ascii=False).encode()
        except DuplicateMemberError as error:
            raise _invalid(file, str(error)) from None
        except ValueError:
            raise _invalid(file, f"it is {not_json_reason(data)}") from None
        return document


def _check_duplicates(
    index: LocatedPath, files: Mapping[str, tuple[FileState, Header]], weight_map: Mapping[str, str]
) -> None:
    """Check that tensors that are in several files are in the index, and have the same dtype and shape everywhere."""
    unlisted: dict[str, str] = {}
    for file, (_, header) in files.items():
        for name, entry in header.tensors.items():
            file_in_index = weight_map.get(name)
            if file_in_index is None and unlisted.setdefault(name, file) != file:
                where = f"{name[:200]!r} is in {unlisted[name]} and in {file}"
                raise _invalid(index, f"{where}, and the index does not list it")
            own, other = (
                f"{each.dtype} {list(each.shape)}" for each in (entry, files[file_in_index or file][1].tensors[name])
            )
            if own != other:
                where = f"{file} contains {name[:200]!r} as {own}"
                raise _invalid(
                    index, f"{where}, and {file_in_index}, which the index names for it, as {other}; remove one of them"
                )


def _no_model(target: LocatedPath) -> RequestError:
    """Return the error for a reference to no model: a file of another format, an empty directory, or nothing."""
    try:
        target.root.stat(target.path)
    except (FileNotFoundError, InvalidLocationError):  # The latter for an empty directory.
        return reference_not_found_error(target.location)
    reason = "it is neither a .safetensors file nor a .safetensors.index.json; convert the model to safetensors first"
    return _invalid(target, reason)


def _invalid(target: LocatedPath, reason: str) -> RequestError:
    return RequestError(Code.INVALID_REFERENCE, f"{target.location!r}: {reason}", location=target.location)
