"""Which of a directory's files are the weights of its model, by their names: one safetensors file, or an index."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import product

from .output_names import MASKS_NAME

SINGLE_FILE = "model.safetensors"
"""Name that `from_pretrained` reads before any index."""
WEIGHTS_SUFFIX = ".safetensors"
WEIGHTS_INDEX_SUFFIX = ".safetensors.index.json"
NEVER_WEIGHTS = (MASKS_NAME, ".")
"""Prefixes of files that hold no weights: masks, and hidden files."""
OTHER_FORMAT = "consolidated"
"""Prefix of files that hold the same model in another format; they are its weights if there are no others."""


class ModelFilesError(Exception):
    """The names of a directory's files do not say which ones are the weights; the text continues after its name."""


def weights_name(names: Iterable[str]) -> str | None:
    """Return the name of the index, else of the only safetensors file; None if there is neither.

    Args:
        names: Names of the files in the directory itself.

    Raises:
        ModelFilesError: If there are several.
    """
    weights = [name for name in sorted(names) if not name.startswith(NEVER_WEIGHTS)]
    own = [name for name in weights if not name.startswith(OTHER_FORMAT)]
    for group, suffix in product((own, weights), (WEIGHTS_INDEX_SUFFIX, WEIGHTS_SUFFIX)):
        candidates = [name for name in group if name.endswith(suffix)]
        if len(candidates) > 1:
            shown = ", ".join(candidates[:4]) + (", ..." if len(candidates) > 4 else "")
            raise ModelFilesError(f"contains {len(candidates)} candidates ({shown}); name one of them")
        if candidates:
            return candidates[0]
    return None


def check_index(index: str, listed: Collection[str], names: Collection[str]) -> None:
    """Check that an index is not contradicted by a file that is read before it.

    Args:
        index: Its name.
        listed: Names of the files that it lists.
        names: Names of the files beside it.

    Raises:
        ModelFilesError: If there is a `SINGLE_FILE` that it does not list.
    """
    if SINGLE_FILE in names and SINGLE_FILE not in listed:
        raise ModelFilesError(f"contains {SINGLE_FILE} and {index}, which does not list it; name one of them")
