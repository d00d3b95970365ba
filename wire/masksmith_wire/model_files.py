"""Finds the weights of a model by the names of the files in its directory: one safetensors file, or an index."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import PurePosixPath

from .output_names import MASKS_NAME, PICKLE_SUFFIXES, is_index_name, is_weights_path, without_index_suffix

SINGLE_FILE = "model.safetensors"
"""Name of the file that `from_pretrained` reads even if the directory has an index."""
WEIGHTS_SUFFIX = ".safetensors"
WEIGHTS_INDEX_SUFFIX = ".safetensors.index.json"
NON_WEIGHTS_PREFIXES = (MASKS_NAME, ".")
"""Prefixes of the names of files that contain no weights: masks, and hidden files."""
OTHER_FORMAT_PREFIX = "consolidated"
"""Prefix of the names of files with the same model in another format; they count only if there are no other weights."""
MAX_LISTED_NAMES = 4
"""Maximum number of file names in a message."""

_PART = re.compile(r"-\d+-of-0*(?P<count>\d+)\.safetensors$")
"""The end of the name of a part of a model, such as `-00001-of-00003.safetensors`; `count` is how many parts it has."""


class ModelFilesError(Exception):
    """The names of a directory's files do not say which of them are the weights.

    The message continues a sentence that begins with the name of the directory.
    """


def is_weights_index(name: str) -> bool:
    """Whether a name is that of an index of safetensors files, also of a variant: `*.safetensors.index.fp16.json`."""
    return is_index_name(name) and without_index_suffix(name).endswith(WEIGHTS_SUFFIX)


def weights_name(names: Iterable[str]) -> str | None:
    """Return the name of the index, else of the only safetensors file; None if there is neither.

    Files with the prefix `OTHER_FORMAT_PREFIX` count only if there is no other index and no other safetensors file. The
    index of a variant counts, with the files that are no parts, if there is no other index.

    Args:
        names: Names of the files in the directory, without those in its subdirectories.

    Raises:
        ModelFilesError: If several indexes count; if there is no index and several safetensors files count; or if there
            is no index and the name of the only file says that it is one of several parts.
    """
    allowed = [name for name in sorted(names) if not name.startswith(NON_WEIGHTS_PREFIXES)]
    preferred = [name for name in allowed if not name.startswith(OTHER_FORMAT_PREFIX)]
    for candidates in (_candidates(preferred), _candidates(allowed)):
        if len(candidates) > 1:
            raise ModelFilesError(f"contains {len(candidates)} candidates ({_listed(candidates)}); name one of them")
        if candidates:
            return _check_not_one_of_parts(candidates[0])
    return None


def _candidates(names: list[str]) -> list[str]:
    """Return those of the names that may be that of a model's index, or else of its only file."""
    indexes = [name for name in names if name.endswith(WEIGHTS_INDEX_SUFFIX)]
    if indexes:
        return indexes
    files = [name for name in names if name.endswith(WEIGHTS_SUFFIX)]
    variants = [name for name in names if is_weights_index(name)]
    no_parts = [name for name in files if _PART.search(name) is None]
    has_parts = len(no_parts) < len(files)
    return [*variants, *no_parts] if variants and has_parts else files


def _check_not_one_of_parts(name: str) -> str:
    """Return the name; raise `ModelFilesError` if it says that the file is one of several parts of a model."""
    part = _PART.search(name)
    if part is not None and part["count"] != "1":
        raise ModelFilesError(
            f"contains {name}, one of {part['count']} parts of a model, and no index: download it completely, or name "
            f"this file"
        )
    return name


def no_weights_reason(paths: Iterable[str]) -> str:
    """Say that a directory has no safetensors file, what it has instead, and what to do.

    The text continues a sentence that begins with the name of the directory.

    Args:
        paths: Paths of the files below the directory, relative to it.
    """
    paths = sorted(path for path in paths if not path.startswith("."))
    names = [path for path in paths if "/" not in path]
    folders = dict.fromkeys(path.rpartition("/")[0] for path in paths if "/" in path and path.endswith(WEIGHTS_SUFFIX))
    pickles = [name for name in names if PurePosixPath(name).suffix in PICKLE_SUFFIXES]
    others = [name for name in names if name != MASKS_NAME and is_weights_path(name)]
    reason = "contains no .safetensors file of weights"
    if pickles:
        advice = "convert the model to safetensors once, such as by save_pretrained of transformers"
        return f"{reason}, but {_listed(pickles)}: pickles, which can run code when they are loaded; {advice}"
    if others:
        return f"{reason}, but {_listed(others)}, which has another format; convert the model to safetensors first"
    if folders:
        return f"{reason}, but directories below it contain some; name one of these: {_listed(folders)}"
    return f"{reason}; it contains {_listed(names or paths)}: name the directory of a model, or a .safetensors file"


def _listed(names: Collection[str]) -> str:
    return ", ".join(list(names)[:MAX_LISTED_NAMES]) + (", ..." if len(names) > MAX_LISTED_NAMES else "")


def check_index(index: str, listed: Collection[str], names: Collection[str]) -> None:
    """Check that the directory has no `SINGLE_FILE` that `from_pretrained` would read in place of an index's files.

    Args:
        index: Name of the index.
        listed: Names of the files that the index lists.
        names: Names of the files in the directory of the index.

    Raises:
        ModelFilesError: If the directory has a `SINGLE_FILE` that the index does not list.
    """
    if SINGLE_FILE in names and SINGLE_FILE not in listed:
        raise ModelFilesError(f"contains {SINGLE_FILE} and {index}, which does not list it; name one of them")
