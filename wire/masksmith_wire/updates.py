"""Weight updates as jobs name them: a method and its options, such as `"admm penalty=0.1"`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

UPDATES_VERSION = 1
"""Raised whenever an update may give other weights for the same input."""


@dataclass(frozen=True)
class UpdateMethod:
    """How a job updates the weights that its masks keep.

    Attributes:
        name: `reconstruct` or `admm`.
        options: Those that were set, as the library's function of that name takes them.
    """

    name: str
    options: Mapping[str, float]

    @property
    def needs_whole_tensors(self) -> bool:
        """Whether all rows of a tensor have a say in each other's weights."""
        return self.name == "admm"

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{name}={_text(value)}" for name, value in sorted(self.options.items()))])


def parse_update(text: str) -> UpdateMethod:
    """Read a method and its options; `parse_update(str(method))` gives the method back.

    Raises:
        ValueError: Naming what is wrong.
    """
    name, *words = text.split()[:20] or [""]
    if name not in _OPTIONS:
        raise ValueError(f"{text[:80]!r} is none of the updates {', '.join(_OPTIONS)}")
    options: dict[str, float] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in _OPTIONS[name]:
            raise ValueError(f"{text[:80]!r}: {name} has no option {key[:40]!r} (it has: {', '.join(_OPTIONS[name])})")
        if key in options:
            raise ValueError(f"{text[:80]!r}: {key} is set twice")
        allowed, read = _OPTIONS[name][key]
        found = read(value)
        if found is None:
            raise ValueError(f"{text[:80]!r}: {key}={value[:40]!r} is not {allowed}")
        options[key] = found
    return UpdateMethod(name, options)


def canonical_update(text: str) -> str:
    """Give the one spelling of an update; raises as `parse_update` does."""
    return str(parse_update(text))


def _text(value: float) -> str:
    return repr(value).removesuffix(".0")


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number < math.inf else None


def _positive(text: str) -> float | None:
    return _number(text) or None


def _count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and 0 < int(text[:6]) <= 10_000 and len(text) < 6 else None


_DAMPING: tuple[str, Callable[[str], float | None]] = ("a number of at least 0", _number)
_OPTIONS: Mapping[str, Mapping[str, tuple[str, Callable[[str], float | None]]]] = {
    "reconstruct": {"damping": _DAMPING},
    "admm": {
        "damping": _DAMPING,
        "penalty": ("a positive number", _positive),
        "max_rounds": ("a whole number from 1 to 10000", _count),
    },
}
