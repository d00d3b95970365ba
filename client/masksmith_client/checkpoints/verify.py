"""Verifies the non-zeros of a checkpoint: against patterns, or against masks.

When patterns are checked, the non-zeros of one tensor at a time are in memory; when masks are checked, only those of
some rows of one tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from masksmith.layouts import Layout
from masksmith.patterns import Pattern, TilePattern
from masksmith_client._errors import InputError
from masksmith_client.results.masks import Masks
from masksmith_client.submission.streamed_tensor import BoolMask, flat_shape
from masksmith_wire.quantities import count_text

from .checkpoint import Checkpoint
from .choice import Choice
from .nonzeros import check_countable, nonzero_bands, nonzeros
from .order import natural_key
from .quantised import check_zero_point
from .tensors import Tensor
from .tile_entries import first_nonzero

Verify = Callable[[BoolMask, Pattern, Layout | None], Any]
"""`masksmith.verify` with `at_most`: returns a verdict with `ok`, `message`, `tile` and `matrix`."""


@dataclass(frozen=True, slots=True)
class CheckedTensor:
    """A tensor whose non-zeros were checked.

    Attributes:
        name: Its name.
        shape: Its shape.
        pattern: The pattern that it is checked against, or that its mask states; None if its mask states none.
        nonzeros: Number of its entries that are not zero.
        message: Describes what is violated; None if nothing is.
        index: Index of an entry that is not zero. If the tensor violates a pattern with tiles, it is the first such
            entry in the first tile that violates the pattern. If the tensor violates a mask, it is the first such entry
            outside the mask. None in all other cases: if nothing is violated; if a pattern without tiles is violated;
            if only the mask violates its own pattern.
    """

    name: str
    shape: tuple[int, ...]
    pattern: str | None
    nonzeros: int
    message: str | None = None
    index: tuple[int, ...] | None = None

    def document(self) -> dict[str, Any]:
        """Return its JSON form."""
        return {
            "name": self.name,
            "ok": self.message is None,
            "pattern": self.pattern,
            "shape": list(self.shape),
            "density": self.nonzeros / max(1, math.prod(self.shape)),
            "message": self.message,
            "index": None if self.index is None else list(self.index),
        }


def check_weights(checkpoint: Checkpoint, choice: Choice) -> None:
    """Refuse a checkpoint if zeros of the tensors to check cannot be counted in its files; these tensors are not read.

    Raises:
        InputError: If weights are packed, have a zero point that is not zero, or have a dtype whose zeros are not
            recognised.
    """
    checkpoint.check_zeros_can_be_counted()
    for chosen in choice.masked_tensors:
        check_countable(checkpoint.tensors[chosen.name])
        check_zero_point(chosen.name, checkpoint.tensors)


def verify_patterns(checkpoint: Checkpoint, choice: Choice, verify: Verify) -> Iterator[CheckedTensor]:
    """Check, for each tensor with a pattern, that its non-zeros exceed no budget of the pattern; yield the results."""
    for chosen in choice.masked_tensors:
        assert chosen.pattern is not None
        entries = nonzeros(checkpoint.tensors[chosen.name])
        verdict = verify(entries, chosen.pattern, chosen.layout)
        message, index = None if verdict.ok else str(verdict.message), None
        if message is not None and isinstance(chosen.pattern, TilePattern):
            index = first_nonzero(entries, chosen.pattern, chosen.layout, verdict.matrix or 0, verdict.tile)
            message += f", at the entry {list(index)}"
        count = int(np.count_nonzero(entries))
        yield CheckedTensor(chosen.name, chosen.shape, str(chosen.pattern), count, message, index)


def tensors_of_masks(checkpoint: Checkpoint, masks: Masks) -> dict[str, Tensor]:
    """Return the tensor of each mask, by the mask's name; the names are in the order of `natural_key`.

    Raises:
        InputError: If there is no tensor for a mask; if the tensor has another shape than the mask, and the mask is not
            flat (see the option `view`); or if the zeros of the tensor cannot be counted.
    """
    tensors: dict[str, Tensor] = {}
    for name in sorted(masks, key=natural_key):
        tensor = checkpoint.find(name)
        if tensor is None:
            note = f"; {checkpoint.quantisation}" if checkpoint.quantisation else ""
            raise InputError(f"there is a mask of {name!r}, and {checkpoint.path} has no such tensor{note}")
        if masks.shape(name) not in (tensor.shape, flat_shape(tensor.shape)):
            raise InputError(
                f"the mask of {name!r} has the shape {list(masks.shape(name))}, and the tensor has {list(tensor.shape)}"
            )
        check_countable(tensor)
        check_zero_point(tensor.name, checkpoint.tensors)
        tensors[name] = tensor
    return tensors


def verify_masks(
    masks: Masks, tensors: Mapping[str, Tensor], violation_of: Callable[[str], str | None]
) -> Iterator[CheckedTensor]:
    """Check each mask against its own pattern, and each tensor for non-zeros outside its mask; yield the results.

    Args:
        masks: The masks.
        tensors: Tensors by the names of their masks.
        violation_of: Takes the name of a mask, and returns how the mask violates the pattern that it states; None if it
            satisfies the pattern or states none.
    """
    for name, tensor in tensors.items():
        info = masks.infos.get(name)
        nonzero_count, outside_count, first_row, first_col = 0, 0, 0, 0
        for band_start, band in nonzero_bands(replace(tensor, shape=masks.shape(name))):
            is_outside = band & ~masks.rows(name, band_start, band_start + len(band))
            nonzero_count += int(np.count_nonzero(band))
            if not outside_count and is_outside.any():
                row, col = np.unravel_index(int(np.argmax(is_outside)), is_outside.shape)
                first_row, first_col = band_start + int(row), int(col)
            outside_count += int(np.count_nonzero(is_outside))
        violation, index = violation_of(name), None
        messages = [] if violation is None else [violation]
        if outside_count:
            first = first_row * masks.shape(name)[-1] + first_col
            index = tuple(int(position) for position in np.unravel_index(first, tensor.shape))
            first_entry = f"the first at the entry {list(index)}"
            messages.append(f"{count_text(outside_count)} non-zero(s) outside its mask, {first_entry}")
        message = "; ".join(messages) or None
        yield CheckedTensor(name, tensor.shape, info.pattern if info else None, nonzero_count, message, index)
