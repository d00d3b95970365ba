"""Read weights from safetensors files, sharded checkpoints and directories. Pickles are never loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from masksmith_client._errors import InputError
from masksmith_wire.headers import Header, HeaderError, TensorEntry, read_header

from .streamed_tensor import PIECE_BYTES, StreamedTensor

PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
INDEX_SUFFIX = ".index.json"


def read_path(path: Path) -> list[StreamedTensor]:
    """List the tensors of a `.safetensors` file, a sharded checkpoint's `*.index.json`, or a directory of either.

    Raises:
        InputError: If there is no readable file; for a pickle the message says how to convert it.
    """
    if path.is_dir():
        return read_path(_find_checkpoint(path))
    if path.suffix in PICKLE_SUFFIXES or path.name.endswith(".bin" + INDEX_SUFFIX):
        raise InputError(_pickle_hint(path))
    if not path.is_file():
        raise InputError(f"{path} does not exist" if not path.exists() else f"{path} is not a file")
    if path.name.endswith(INDEX_SUFFIX):
        return _read_sharded(path)
    return _tensors(path, _read_file_header(path))


def read_metadata(path: Path) -> Mapping[str, str]:
    """Return the free-form metadata of the file that `read_path` reads; of a sharded checkpoint, of its first file."""
    if path.is_dir():
        return read_metadata(_find_checkpoint(path))
    if path.name.endswith(INDEX_SUFFIX):
        first = next(iter(json.loads(path.read_bytes())["weight_map"].values()), None)
        return {} if first is None else _shard_header(path, first).metadata
    return _read_file_header(path).metadata


def _read_file_header(path: Path) -> Header:
    try:
        with path.open("rb") as file:
            return read_header(file)
    except HeaderError as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def _find_checkpoint(folder: Path) -> Path:
    indexes = sorted(folder.glob("*.safetensors" + INDEX_SUFFIX))
    files = sorted(folder.glob("*.safetensors"))
    for paths in (indexes, files):
        if len(paths) == 1:
            return paths[0]
        if paths:
            names = ", ".join(path.name for path in paths[:4])
            raise InputError(f"{folder} contains {len(paths)} candidates ({names}, ...); pass the path of one of them")
    pickles = sorted(path for path in folder.iterdir() if path.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise InputError(_pickle_hint(pickles[0]))
    raise InputError(f"{folder} contains no .safetensors file")


def _read_sharded(index: Path) -> list[StreamedTensor]:
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        files = {str(name): str(file) for name, file in weight_map.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{index} is not a checkpoint index: it has no 'weight_map' of names to files") from None
    weights: dict[str, StreamedTensor] = {}
    for file in dict.fromkeys(files.values()):
        weights |= {weight.name: weight for weight in _tensors(index.parent / file, _shard_header(index, file))}
    missing = [name for name in files if name not in weights]
    if missing:
        raise InputError(f"{index} lists {missing[0]!r} in {files[missing[0]]}, but that file does not contain it")
    return [weights[name] for name in files]


def _shard_header(index: Path, file: str) -> Header:
    # The index may be untrusted: it may name only files in its own directory.
    if Path(file).name != file:
        raise InputError(f"{index} names a file outside its directory: {file!r}")
    if Path(file).suffix in PICKLE_SUFFIXES:
        raise InputError(_pickle_hint(index.parent / file))
    return _read_file_header(index.parent / file)


def _tensors(path: Path, header: Header) -> list[StreamedTensor]:
    return [
        StreamedTensor(entry.name, entry.dtype, entry.shape, lambda entry=entry: _read(path, entry))  # type: ignore[misc]
        for entry in header.tensors.values()
    ]


def _read(path: Path, entry: TensorEntry) -> Iterator[bytes]:
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(entry.start)
            remaining = entry.stop - entry.start
            while remaining:
                piece = file.read(min(PIECE_BYTES, remaining))
                if not piece:
                    raise InputError(f"{path} ended inside {entry.name!r}: the file changed while it was read")
                remaining -= len(piece)
                yield piece
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def _pickle_hint(path: Path) -> str:
    return (
        f"{path} is a pickle, which can run code when it is loaded, so masksmith reads only safetensors. Convert it "
        f"once: python -c \"import torch, safetensors.torch as s; s.save_file(torch.load('{path.name}', "
        f"weights_only=True), 'model.safetensors')\""
    )
