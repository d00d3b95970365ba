"""Tensors that share a part of their memory, such as a weight and a slice or the transpose of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith_client._errors import InputError

from .tensors import has_memory, is_torch

Pair = tuple[str, str]
"""The names of two tensors that share memory."""
MAX_WORK = 10**5
"""Maximum number of candidate solutions in the search for an entry that two tensors have in common."""


class _Placeholder:
    """Describes the memory of a torch tensor to numpy, which does not read it; the memory may be on any device."""

    def __init__(self, tensor: Any) -> None:
        size = tensor.element_size()
        self.__array_interface__ = {
            "version": 3,
            "data": (tensor.data_ptr(), True),
            "shape": tuple(tensor.shape),
            "strides": tuple(stride * size for stride in tensor.stride()),
            "typestr": f"|V{size}",
        }


def overlapping_pairs(tensors: Mapping[str, Any]) -> list[Pair]:
    """Return the pairs of torch tensors that have at least one byte of memory in common, or may have one.

    Tied tensors, which are the same memory in the same form, are also such a pair. Values that are not torch tensors,
    and tensors without memory, are ignored.
    """
    by_device: dict[str, list[tuple[int, int, str, npt.NDArray[Any]]]] = {}
    for name, tensor in tensors.items():
        if is_torch(tensor) and has_memory(tensor):
            array = np.asarray(_Placeholder(tensor))
            first, end = np.lib.array_utils.byte_bounds(array)
            by_device.setdefault(str(tensor.device), []).append((first, end, name, array))
    return [pair for places in by_device.values() for pair in _overlapping(sorted(places, key=lambda each: each[:2]))]


def check_masked_once(pairs: Iterable[Pair], masked: Collection[str], ties: Mapping[str, Collection[str]]) -> None:
    """Check that no memory is masked twice.

    Args:
        pairs: Tensors that share memory.
        masked: The names of the masked tensors.
        ties: For the name of a tensor, the names of the tensors that are the same memory in the same form; all of them
            have one mask.

    Raises:
        InputError: If both tensors of a pair are masked, and they are not tied.
    """
    for one, other in pairs:
        if one in masked and other in masked and other not in ties.get(one, ()):
            raise InputError(
                f"{one!r} and {other!r} share memory in different forms, such as a transpose or a slice, and would "
                "have two masks: exclude one of them, or clone it"
            )


def _overlapping(places: list[tuple[int, int, str, npt.NDArray[Any]]]) -> list[Pair]:
    """Return the pairs that share memory, of tensors on one device in the order of their addresses."""
    pairs = []
    for index, (_, end, name, array) in enumerate(places):
        for first, _, other, other_array in places[index + 1 :]:
            if first >= end:
                break
            if _share_memory(array, other_array):
                pairs.append((name, other))
    return pairs


def _share_memory(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    """Whether two arrays share memory; also True if finding out would take too long.

    This is exact also for views with interleaved entries, such as the left and the right half of a matrix. Only strides
    that no slice or transpose has, such as `torch.as_strided` can make, take long: in the worst case, the time is
    exponential.
    """
    try:
        return np.shares_memory(one, other, max_work=MAX_WORK)  # type: ignore[arg-type] # its stub knows -1 and 0 only
    except np.exceptions.TooHardError:
        return True
