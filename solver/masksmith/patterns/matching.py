"""Matching of names, exactly or by glob. In this package, because the floors of budgets need it, too."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase, translate

Globs = str | Sequence[str] | None
"""One name or glob, several, or none."""


def matches(name: str, text: str) -> bool:
    """Return whether `text` equals this name or is a glob that matches it."""
    return name == text or fnmatchcase(name, text)


class Names:
    """Names and globs, resolved against all known names: a text that is a known name matches only that name.

    Args:
        texts: Names and globs, case-sensitive.
        known: All known names.

    Attributes:
        texts: Names and globs as a list.
        unmatched: Those that match no name.
    """

    def __init__(self, texts: Globs, known: Iterable[str]) -> None:
        known = frozenset(known)
        self.texts = [texts] if isinstance(texts, str) else list(texts or ())
        self._exact = known.intersection(self.texts)
        globs = {text: re.compile(translate(text)).match for text in self.texts if text not in known}
        self._globs = list(globs.values())
        self.unmatched = [text for text, match in globs.items() if not any(map(match, known))]

    def has_exact(self, *spellings: str) -> bool:
        """Return whether one of these known names is among the texts itself, not only matched by a glob."""
        return not self._exact.isdisjoint(spellings)

    def match(self, *spellings: str) -> bool:
        """Return whether any text equals or matches one of these spellings of a name."""
        return self.has_exact(*spellings) or any(match(name) for match in self._globs for name in spellings)
