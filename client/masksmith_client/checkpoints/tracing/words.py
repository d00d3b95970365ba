"""Axes of a tensor from what each of its dimensions is known to do."""

from __future__ import annotations

from collections.abc import Sequence

from masksmith.layouts.layout import Word

_TOGETHER: dict[frozenset[Word], Word] = {
    frozenset({"stack", "out"}): "out",
    frozenset({"in", "kernel"}): "in",
}
"""What a dimension is that was split in two, or that two were merged into."""


def axes_from(words: Sequence[frozenset[Word]], shape: Sequence[int]) -> tuple[Word, ...] | None:
    """Give one word for each dimension; None if that is not certain.

    Args:
        words: For each dimension, what it does in the products; nothing for one that only counts matrices, or that has
            one entry.
        shape: Its lengths.
    """
    axes: list[Word | None] = []
    for some, length in zip(words, shape, strict=True):
        word = next(iter(some)) if len(some) == 1 else _TOGETHER.get(some)
        if word is None and some:
            return None
        axes.append(word or ("stack" if length > 1 else None))
    return _once_each(axes)


def _once_each(axes: list[Word | None]) -> tuple[Word, ...] | None:
    """Keep one `out` and one `in`: more outputs are stacked, and what is summed over after `in` is its kernel."""
    for word in ("out", "in"):
        if word not in axes and None in axes:
            axes[axes.index(None)] = word
    outs = [place for place, word in enumerate(axes) if word == "out"]
    ins = [place for place, word in enumerate(axes) if word == "in"]
    if not outs or not ins or (len(ins) > 1 and outs[-1] > ins[0]):
        return None
    for place in outs[:-1]:
        axes[place] = "stack"
    for place in ins[1:]:
        axes[place] = "kernel"
    rest: Word = "kernel" if "kernel" in axes else "stack"
    return tuple(word or rest for word in axes)
