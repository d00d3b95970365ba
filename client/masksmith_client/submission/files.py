"""Weights on disk: safetensors files, sharded checkpoints and their directories. Nothing is ever unpickled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from masksmith_client._errors import InputError
from masksmith_wire.headers import Header, HeaderError, TensorEntry, read_header

from .weights import PIECE_BYTES, Weight

PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
INDEX_SUFFIX = ".index.json"


def read_path(path: Path) -> list[Weight]:
    """List the tensors of a `.safetensors` file, a sharded checkpoint's `*.index.json`, or a directory of either.

    Raises:
        InputError: If there is nothing readable; says how to convert a pickle.
    """
    if path.is_dir():
        return read_path(_inside(path))
    if path.suffix in PICKLES or path.name.endswith(".bin" + INDEX_SUFFIX):
        raise InputError(_pickle_hint(path))
    if not path.is_file():
        raise InputError(f"{path} does not exist" if not path.exists() else f"{path} is no file")
    if path.name.endswith(INDEX_SUFFIX):
        return _sharded(path)
    return _weights(path, _header(path))


def read_metadata(path: Path) -> Mapping[str, str]:
    """Give the free-form metadata of what `read_path` reads; a sharded checkpoint's is that of its first file."""
    if path.is_dir():
        return read_metadata(_inside(path))
    if path.name.endswith(INDEX_SUFFIX):
        first = next(iter(json.loads(path.read_bytes())["weight_map"].values()), None)
        return {} if first is None else _shard_header(path, first).metadata
    return _header(path).metadata


def _header(path: Path) -> Header:
    try:
        with path.open("rb") as file:
            return read_header(file)
    except HeaderError as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def _inside(folder: Path) -> Path:
    indexes = sorted(folder.glob("*.safetensors" + INDEX_SUFFIX))
    files = sorted(folder.glob("*.safetensors"))
    for paths in (indexes, files):
        if len(paths) == 1:
            return paths[0]
        if paths:
            names = ", ".join(path.name for path in paths[:4])
            raise InputError(f"{folder} holds {len(paths)} candidates ({names}, ...); name the one that is meant")
    pickles = sorted(path for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise InputError(_pickle_hint(pickles[0]))
    raise InputError(f"{folder} holds no .safetensors file")


def _sharded(index: Path) -> list[Weight]:
    try:
        members = json.loads(index.read_bytes())["weight_map"]
        files = {str(name): str(file) for name, file in members.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{index} is no checkpoint index: it has no 'weight_map' of names to files") from None
    weights: dict[str, Weight] = {}
    for file in dict.fromkeys(files.values()):
        weights |= {weight.name: weight for weight in _weights(index.parent / file, _shard_header(index, file))}
    missing = [name for name in files if name not in weights]
    if missing:
        raise InputError(f"{index} promises {missing[0]!r} in {files[missing[0]]}, which does not hold it")
    return [weights[name] for name in files]


def _shard_header(index: Path, file: str) -> Header:
    # An index may be untrusted: it names files in its own directory, nothing else.
    if Path(file).name != file:
        raise InputError(f"{index} points outside of its directory: {file!r}")
    if Path(file).suffix in PICKLES:
        raise InputError(_pickle_hint(index.parent / file))
    return _header(index.parent / file)


def _weights(path: Path, header: Header) -> list[Weight]:
    return [
        Weight(entry.name, entry.dtype, entry.shape, lambda entry=entry: _read(path, entry))  # type: ignore[misc]
        for entry in header.tensors.values()
    ]


def _read(path: Path, entry: TensorEntry) -> Iterator[bytes]:
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(entry.start)
            left = entry.stop - entry.start
            while left:
                piece = file.read(min(PIECE_BYTES, left))
                if not piece:
                    raise InputError(f"{path} ended inside of {entry.name!r}: it changed while it was being read")
                left -= len(piece)
                yield piece
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def _pickle_hint(path: Path) -> str:
    return (
        f"{path} is a pickle, which can run code when it is loaded, so masksmith reads only safetensors. Convert it "
        f"once: python -c \"import torch, safetensors.torch as s; s.save_file(torch.load('{path.name}', "
        f"weights_only=True), 'model.safetensors')\""
    )
