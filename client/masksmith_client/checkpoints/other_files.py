"""Files of a model's directory beside its weights: which are copied, and which are not, as they repeat the weights."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from masksmith_wire.output_names import JOURNAL_NAME, OWN_FILES, RECORD_NAME, WEIGHT_FOLDERS, names_weights

from .checkpoint import Checkpoint
from .config import CONFIG_NAME


@dataclass
class OtherFiles:
    """Paths in a model's directory, relative to it.

    Attributes:
        copied: Files to copy.
        not_copied: Files and folders that are not copied, because they hold weights that are not pruned.
    """

    copied: list[Path] = field(default_factory=list)
    not_copied: list[Path] = field(default_factory=list)


def other_files(checkpoint: Checkpoint, output: Path) -> OtherFiles:
    """Sort the files beside a checkpoint's weights.

    A single file without a config beside it has none. Hidden files are neither copied nor listed.
    """
    files = OtherFiles()
    if checkpoint.path.is_dir() or (checkpoint.folder / CONFIG_NAME).is_file():
        own = {file.name for file in checkpoint.headers} | {checkpoint.weights.name}
        _Sorter(checkpoint.folder, output.resolve(), files).sort(Path(), own)
    return files


def model_files(checkpoint: Checkpoint) -> list[Path]:
    """Return the files of a checkpoint that are read, and those beside it, except earlier masks."""
    beside = other_files(checkpoint, checkpoint.folder / "none")
    names = [path for path in [*beside.copied, *beside.not_copied] if path.name not in OWN_FILES]
    return [*checkpoint.headers, checkpoint.weights, *(checkpoint.folder / path for path in names)]


class _Sorter:
    """Sorts the files below a folder."""

    def __init__(self, root: Path, output: Path, files: OtherFiles) -> None:
        self._root, self._output, self._files = root, output, files
        self._modules = _module_folders(root)

    def sort(self, relative: Path, own: set[str]) -> None:
        """Sort a folder, given relative to the root; `own` are names of the checkpoint's files in it."""
        for entry in _visible(self._root / relative):
            path, is_module = relative / entry.name, str(relative) in self._modules
            if entry.is_dir():
                self._sort_folder(path)
            elif entry.name in own:
                continue
            elif entry.name in OWN_FILES or (names_weights(entry.name) and not is_module):
                self._files.not_copied.append(path)
            elif entry.is_file():
                self._files.copied.append(path)

    def _sort_folder(self, path: Path) -> None:
        if (self._root / path).resolve() == self._output:
            return
        if _is_excluded(self._root / path):
            self._files.not_copied.append(path)
        else:
            self.sort(path, set())


def _module_folders(root: Path) -> frozenset[str]:
    """Folders with weights of further modules of the model, as the `modules.json` of sentence-transformers lists."""
    try:
        modules = json.loads((root / "modules.json").read_bytes())
        return frozenset(str(module["path"]) for module in modules if module["path"])
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()


def _is_excluded(folder: Path) -> bool:
    """Whether a folder is another form of the weights, an output of masksmith, or a link, which could lead anywhere."""
    is_output = any((folder / name).exists() for name in (JOURNAL_NAME, RECORD_NAME))
    return folder.name.lower() in WEIGHT_FOLDERS or folder.is_symlink() or is_output


def _visible(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
