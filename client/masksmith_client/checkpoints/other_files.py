"""Files of a model's directory besides its weights: which are copied to an output, and which are not."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from masksmith_client._errors import InputError
from masksmith_wire.output_names import JOURNAL_NAME, OWN_FILES, RECORD_NAME, is_weights_folder, is_weights_name

from .checkpoint import Checkpoint
from .config import CONFIG_NAME
from .files import read_json


@dataclass
class OtherFiles:
    """Paths in a model's directory, relative to it.

    Attributes:
        copied: Files to copy.
        not_copied: Files and folders that are not copied: other files of weights, such as the same model in another
            format; those that masksmith made; links to folders; and what is neither file nor folder, such as a pipe.
        broken_links: Links that would be copied as files, but lead to no file.
    """

    copied: list[Path] = field(default_factory=list)
    not_copied: list[Path] = field(default_factory=list)
    broken_links: list[Path] = field(default_factory=list)


def other_files(checkpoint: Checkpoint, output: Path | None) -> OtherFiles:
    """Return the files besides a checkpoint's weights, classified by whether they are copied to `output`.

    A checkpoint that is opened by a file, without a config in the file's directory, has no other files. Hidden files
    and folders, and the folder `output`, are in none of the lists.
    """
    files = OtherFiles()
    if checkpoint.path.is_dir() or (checkpoint.folder / CONFIG_NAME).is_file():
        weight_names = {file.name for file in checkpoint.headers} | {checkpoint.weights.name}
        _Classifier(checkpoint.folder, None if output is None else output.resolve(), files).add_folder(
            Path(), weight_names
        )
    return files


def model_files(checkpoint: Checkpoint) -> list[Path]:
    """Return the paths of a checkpoint's weights and of its `other_files`.

    Broken links, and files that masksmith adds, are left out.
    """
    others = other_files(checkpoint, output=None)
    paths = [path for path in [*others.copied, *others.not_copied] if path.name not in OWN_FILES]
    return [*checkpoint.headers, checkpoint.weights, *(checkpoint.folder / path for path in paths)]


class _Classifier:
    """Adds the files and folders below a root to the lists of `OtherFiles`."""

    def __init__(self, root: Path, output: Path | None, files: OtherFiles) -> None:
        self._root, self._output, self._files = root, output, files
        self._module_folders = _module_folders(root)

    def add_folder(self, relative: Path, weight_names: set[str]) -> None:
        """Add what is in a folder and below it, except the files `weight_names` of the folder itself.

        Weights in the folders of further modules (see `_module_folders`) are copied, since they are not pruned.

        Args:
            relative: Path of the folder, relative to the root.
            weight_names: Names of the checkpoint's weights in the folder.
        """
        is_module = relative.as_posix() in self._module_folders
        for entry in _visible_entries(self._root / relative):
            path = relative / entry.name
            if entry.is_dir():
                self._add_subfolder(path)
            elif entry.name in weight_names:
                continue
            elif entry.name in OWN_FILES or (is_weights_name(entry.name) and not is_module):
                self._files.not_copied.append(path)
            elif entry.is_file():
                self._files.copied.append(path)
            elif entry.is_symlink():
                self._files.broken_links.append(path)
            else:
                self._files.not_copied.append(path)

    def _add_subfolder(self, path: Path) -> None:
        if (self._root / path).resolve() == self._output:
            return
        if _is_excluded(self._root / path):
            self._files.not_copied.append(path)
        else:
            self.add_folder(path, set())


def _module_folders(root: Path) -> frozenset[str]:
    """Return the folders of further modules that sentence-transformers lists in `modules.json`.

    The paths are relative to the root, without `.`, `..` and repeated slashes; the root is not among them. There are
    none if the file is missing or malformed.
    """
    try:
        modules = read_json(root / "modules.json")
        paths = {posixpath.normpath(module["path"]) for module in modules if module["path"]}
    except (InputError, KeyError, TypeError):
        return frozenset()
    return frozenset(paths - {"."})


def _is_excluded(folder: Path) -> bool:
    """Whether a folder has the weights in another format, is an output of masksmith, or is a symbolic link."""
    is_output = any((folder / name).exists() for name in (JOURNAL_NAME, RECORD_NAME))
    return is_weights_folder(folder.name) or folder.is_symlink() or is_output


def _visible_entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
