"""The steps of writing a pruned checkpoint: for each file, the tensors that are not copied, in the order of bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from masksmith_wire.headers import TensorEntry

from .checkpoint import Checkpoint
from .choice import Choice, ChosenTensor
from .tensors import Tensor


@dataclass(frozen=True, slots=True)
class Step:
    """How a tensor of an output file is written, if its bytes are not copied from the input file.

    A duplicate is a tensor of a file other than the one that the index names for it.

    Attributes:
        entry: The tensor's entry in the headers of the input file and of the output file, which are the same.
        source: The tensor whose bytes are used: that of the file that the index names, if `entry` is a duplicate.
        chosen: Pattern and layout of the tensor; None for a duplicate that stays dense.
        solves: Whether this step solves the mask of the tensor's parameter.
        writes_mask: Whether this step writes the mask to the masks file, under the tensor's name.
        first_written: The tensor of the same parameter that is written first; it may be the tensor of this step. All
            tensors of the parameter get its mask. None for a duplicate that stays dense.
    """

    entry: TensorEntry
    source: Tensor
    chosen: ChosenTensor | None = None
    solves: bool = False
    writes_mask: bool = False
    first_written: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps of every file, and the names of all masks in the order in which the masks are written."""

    by_file: Mapping[Path, list[Step]]
    mask_names: list[str]


def make_steps(checkpoint: Checkpoint, choice: Choice) -> Steps:
    """Make the steps of all files, in the order in which the files are written.

    A parameter is solved where it comes first; its other names and its duplicates get the same mask and values.
    """
    by_file: dict[Path, list[Step]] = {}
    first_written: dict[str, Tensor] = {}
    mask_names: dict[str, None] = {}
    for file, header in checkpoint.headers.items():
        steps = by_file.setdefault(file, [])
        for entry in sorted(header.tensors.values(), key=lambda entry: (entry.start, entry.stop)):
            source, chosen = checkpoint.tensors[entry.name], choice.tensors[entry.name]
            if chosen.reason is not None:
                if source.file != file:
                    steps.append(Step(entry, source))
                continue
            parameter = checkpoint.ties.get(entry.name, entry.name)
            writes_mask = entry.name not in mask_names
            solves = parameter not in first_written
            first = first_written.setdefault(parameter, Tensor.of(file, entry))
            if writes_mask:
                mask_names[entry.name] = None
            steps.append(Step(entry, source, chosen, solves, writes_mask, first))
    return Steps(by_file, list(mask_names))
