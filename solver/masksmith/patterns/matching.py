"""Compares names with names and globs, and finds similar names.

The module is in `masksmith.patterns` because budgets and the patterns of single tensors need it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase, translate
from typing import Any

from .errors import PatternError

Globs = str | Sequence[str] | None
"""One name or glob, several, or none."""


def matches(name: str, text: str) -> bool:
    """Return whether `text` equals this name or is a glob that matches it."""
    return name == text or fnmatchcase(name, text)


def listed(globs: Globs, option: str) -> list[str]:
    """Return the value of an option that takes one name or glob, several, or none, as a list.

    Raises:
        PatternError: If the value has another type.
    """
    if isinstance(globs, str):
        return [globs]
    can_be_listed = globs is None or (isinstance(globs, Iterable) and not isinstance(globs, bytes))
    # Any other value becomes a member of the list, which the next check refuses.
    texts: list[Any] = list(globs or ()) if can_be_listed else [globs]
    if not all(isinstance(text, str) for text in texts):
        raise PatternError(f"{option}={globs!r}: expected a name or glob, or several")
    return texts


def describe_unknown_names(names: Iterable[str], known: Collection[str]) -> str | None:
    """Return a text about the names that are not known; None if all are known.

    The text lists at most three unknown names, each with the most similar known name if one is similar enough, and then
    at most five known names.
    """
    unknown = [name for name in names if name not in known]
    if not unknown:
        return None
    known_names, descriptions = list(known), []
    for name in unknown[:3]:
        similar = get_close_matches(str(name), known_names, n=1, cutoff=0.8)
        descriptions.append(f"{name!r} (did you mean {similar[0]!r}?)" if similar else repr(name))
    more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
    rest = f", ... ({len(known_names)} in all)" if len(known_names) > 5 else ""
    return f"{', '.join(descriptions)}{more}; there are {', '.join(map(repr, known_names[:5])) or 'none'}{rest}"


class NameMatcher:
    """Names and globs, compared with all known names; a text that is a known name matches only that name.

    Args:
        texts: Names and globs, case-sensitive.
        known: All known names.

    Attributes:
        texts: Names and globs as a list.
        unmatched: Those texts that match no known name.
    """

    def __init__(self, texts: Globs, known: Iterable[str]) -> None:
        known = frozenset(known)
        self.texts = [texts] if isinstance(texts, str) else list(texts or ())
        self._exact = known.intersection(self.texts)
        globs = {text: re.compile(translate(text)).match for text in self.texts if text not in known}
        self._globs = list(globs.values())
        self.unmatched = [text for text, match in globs.items() if not any(map(match, known))]

    def has_exact(self, *spellings: str) -> bool:
        """Return whether one of these spellings of a known name is among the texts, not only matched by a glob."""
        return not self._exact.isdisjoint(spellings)

    def match(self, *spellings: str) -> bool:
        """Return whether any text equals or matches one of these spellings of a name."""
        return self.has_exact(*spellings) or any(match(name) for match in self._globs for name in spellings)
