"""Names of files of tensors: masks and weights are written as safetensors files, whatever their name."""

from __future__ import annotations

from pathlib import Path

from masksmith_client._errors import InputError
from masksmith_wire.output_names import WEIGHT_SUFFIXES

SUFFIX = ".safetensors"
_OTHER_SUFFIXES = WEIGHT_SUFFIXES - {SUFFIX} | {".npy", ".zip", ".tar", ".gz"}
"""Suffixes of other formats; every other suffix, and a name without one, says nothing about the format."""


def check_tensor_file_name(output: Path) -> None:
    """Refuse a file or a directory to write whose name has the suffix of another format.

    Programs choose by the suffix how they read a file.

    Raises:
        InputError: If the name has such a suffix.
    """
    if output.suffix.lower() in _OTHER_SUFFIXES:
        raise InputError(
            f"{output} has the suffix of another format, and masks and weights are written as safetensors: name it "
            f"{output.with_suffix(SUFFIX)}"
        )
