"""Files of a model's directory beside its weights: which are copied, and which hold the same weights once more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .checkpoint import Checkpoint
from .config import CONFIG_NAME
from .files import INDEX_SUFFIX, PICKLE_SUFFIXES

WEIGHT_SUFFIXES = PICKLE_SUFFIXES | {
    ".safetensors", ".gguf", ".ggml", ".h5", ".msgpack", ".onnx", ".onnx_data", ".ot", ".tflite", ".mlmodel", ".npz",
}  # fmt: skip
WEIGHT_FOLDERS = frozenset({"original", "consolidated", "onnx", "openvino", "coreml", "gguf"})
OWN_FILES = frozenset({"masks.safetensors", "masksmith.json"})


@dataclass
class OtherFiles:
    """Paths in a model's directory, relative to it.

    Attributes:
        copied: Files to copy.
        left: Files and folders that are not copied, because they hold weights that are not pruned.
    """

    copied: list[Path] = field(default_factory=list)
    left: list[Path] = field(default_factory=list)


def other_files(checkpoint: Checkpoint, output: Path) -> OtherFiles:
    """Sort the files beside a checkpoint's weights.

    Nothing belongs to a single file without a config beside it. Hidden files are neither copied nor listed.
    """
    files = OtherFiles()
    if checkpoint.path.is_dir() or (checkpoint.folder / CONFIG_NAME).is_file():
        own = {file.name for file in checkpoint.headers} | {checkpoint.weights.name}
        _sort(checkpoint.folder, Path(), own, output.resolve(), files)
    return files


def _sort(folder: Path, relative: Path, own: set[str], output: Path, files: OtherFiles) -> None:
    for entry in _visible(folder):
        path = relative / entry.name
        if entry.is_dir(follow_symlinks=False):
            if Path(entry.path).resolve() == output:
                continue
            if entry.name.lower() in WEIGHT_FOLDERS:
                files.left.append(path)
            else:
                _sort(Path(entry.path), path, set(), output, files)
        elif entry.name in own:
            continue
        elif _holds_weights(entry.name) or entry.name in OWN_FILES:
            files.left.append(path)
        elif entry.is_file():
            files.copied.append(path)


def _visible(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _holds_weights(name: str) -> bool:
    stem = name.removesuffix(INDEX_SUFFIX) if name.endswith(INDEX_SUFFIX) else name
    return Path(stem).suffix.lower() in WEIGHT_SUFFIXES or ".onnx" in name
