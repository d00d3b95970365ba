"""The steps of writing a pruned checkpoint: the tensors of each file in the order of their bytes, with their masks."""

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
    """A tensor of an output file that is not copied as it is.

    Attributes:
        entry: Its place in the input file and in the output file, whose headers are the same.
        source: The tensor whose bytes are used: in the file that the index names, if `entry` is a duplicate.
        chosen: Its pattern and layout; None for a duplicate that stays dense.
        solves: Whether this step solves the mask of its parameter.
        writes_mask: Whether this step writes the mask to the masks file, under the tensor's name.
        first: The tensor of the same parameter that is written first, whose mask it gets; None for a duplicate that
            stays dense.
    """

    entry: TensorEntry
    source: Tensor
    chosen: ChosenTensor | None = None
    solves: bool = False
    writes_mask: bool = False
    first: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps of every file, and the names of all masks in the order in which they are written."""

    by_file: Mapping[Path, list[Step]]
    masks: list[str]


def make_steps(checkpoint: Checkpoint, choice: Choice) -> Steps:
    """Make the steps of all files, in the order in which the files are written.

    A parameter is solved where it comes first; its other names and its duplicates get the same mask and values.
    """
    by_file: dict[Path, list[Step]] = {}
    first_written: dict[str, Tensor] = {}
    masks: list[str] = []
    for file, header in checkpoint.headers.items():
        steps = by_file.setdefault(file, [])
        for entry in sorted(header.tensors.values(), key=lambda entry: (entry.start, entry.stop)):
            source = checkpoint.tensors.get(entry.name)
            if source is None:
                continue
            chosen = choice.tensors[entry.name]
            if chosen.reason is not None:
                if source.file != file:
                    steps.append(Step(entry, source))
                continue
            parameter = checkpoint.ties.get(entry.name, entry.name)
            writes_mask = entry.name not in masks
            solves = parameter not in first_written
            first = first_written.setdefault(parameter, Tensor.of(file, entry))
            if writes_mask:
                masks.append(entry.name)
            steps.append(Step(entry, source, chosen, solves, writes_mask, first))
    return Steps(by_file, masks)
