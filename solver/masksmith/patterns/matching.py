"""How names match: exactly first, then as globs. Here and not in `layouts`, because budgets have floors by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase, translate

Globs = str | Sequence[str] | None
"""One name or glob, several, or none."""


def matches(name: str, text: str) -> bool:
    """Whether `text` is this name or a glob that matches it, where no other names are known."""
    return name == text or fnmatchcase(name, text)


class Names:
    """Names and globs, read against all names that there are: a text that is a name means that one alone.

    Args:
        texts: Names and globs; case counts.
        known: All names that there are.

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

    def spell_out(self, *spellings: str) -> bool:
        """Whether one of these spellings is among the texts, letter by letter."""
        return not self._exact.isdisjoint(spellings)

    def match(self, *spellings: str) -> bool:
        """Whether any text means one of these spellings."""
        return self.spell_out(*spellings) or any(match(name) for match in self._globs for name in spellings)
