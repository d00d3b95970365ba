"""Finds the weights of a model by the names of the files in its directory: one safetensors file, or an index."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from itertools import product

from .output_names import MASKS_NAME

SINGLE_FILE = "model.safetensors"
"""Name of the file that `from_pretrained` reads even if the directory has an index."""
WEIGHTS_SUFFIX = ".safetensors"
WEIGHTS_INDEX_SUFFIX = ".safetensors.index.json"
NEVER_WEIGHTS = (MASKS_NAME, ".")
"""Prefixes of the names of files that contain no weights: masks, and hidden files."""
OTHER_FORMAT = "consolidated"
"""Prefix of the names of files with the same model in another format; they count only if there are no other weights."""

_PART = re.compile(r"-\d+-of-0*(?P<count>\d+)\.safetensors$")
"""The end of the name of a part of a model, such as `-00001-of-00003.safetensors`; `count` is how many parts it has."""


class ModelFilesError(Exception):
    """The names of a directory's files do not say which of them are the weights.

    The message continues a sentence that begins with the name of the directory.
    """


def weights_name(names: Iterable[str]) -> str | None:
    """Return the name of the index, else of the only safetensors file; None if there is neither.

    Files with the prefix `OTHER_FORMAT` count only if there is no other index and no other safetensors file.

    Args:
        names: Names of the files in the directory, without those in its subdirectories.

    Raises:
        ModelFilesError: If several indexes count; if there is no index and several safetensors files count; or if there
            is no index and the name of the only file says that it is one of several parts.
    """
    allowed = [name for name in sorted(names) if not name.startswith(NEVER_WEIGHTS)]
    preferred = [name for name in allowed if not name.startswith(OTHER_FORMAT)]
    for group, suffix in product((preferred, allowed), (WEIGHTS_INDEX_SUFFIX, WEIGHTS_SUFFIX)):
        candidates = [name for name in group if name.endswith(suffix)]
        if len(candidates) > 1:
            shown = ", ".join(candidates[:4]) + (", ..." if len(candidates) > 4 else "")
            raise ModelFilesError(f"contains {len(candidates)} candidates ({shown}); name one of them")
        if candidates:
            return _complete(candidates[0])
    return None


def _complete(name: str) -> str:
    """Return the name of an index, or of a file that is no part of a model; raise `ModelFilesError` otherwise."""
    part = _PART.search(name)
    if part is not None and part["count"] != "1":
        raise ModelFilesError(
            f"contains {name}, one of {part['count']} parts of a model, and no index: download it completely, or name "
            f"this file"
        )
    return name


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
