"""Patterns by tensor: a default, and rules for the tensors that a name, a glob or a part of a name selects."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Self

from .errors import PatternError
from .grammar import parse
from .matching import matches
from .pattern import Axis, Pattern, Ragged

PatternsByTensor = str | Pattern | Sequence[str] | Mapping[str, str | Pattern]
"""A pattern or its text, several texts such as `2:4` and `mlp=1:4`, or patterns by selector (`*` for the default)."""

EVERYTHING = "*"
"""Selector of the default."""


@dataclass(frozen=True, slots=True)
class TensorPatterns:
    """Which pattern each tensor has.

    Attributes:
        default: The pattern of all tensors that no rule selects; if None, these tensors stay dense.
        rules: Patterns by selector, in the order given.
    """

    default: Pattern | None
    rules: Mapping[str, Pattern] = field(default_factory=dict)

    @classmethod
    def parse(cls, texts: Sequence[str], axis: Axis = "in", ragged: Ragged = "pad") -> Self:
        """Read patterns such as `2:4` or `mlp=transposable 8:16`.

        Raises:
            PatternError: If there is no pattern, one is malformed, two have the same selector, or two are the default.
        """
        default: Pattern | None = None
        rules: dict[str, Pattern] = {}
        for text in texts:
            selector, pattern = _split(text, axis, ragged)
            if selector in rules or (selector is None and default is not None):
                raise PatternError(f"pattern {text[:700]!r}: there is another pattern for the same tensors")
            if selector is None:
                default = pattern
            else:
                rules[selector] = pattern
        if default is None and not rules:
            raise PatternError("there is no pattern")
        return cls(default, rules)

    @classmethod
    def of(cls, patterns: PatternsByTensor, axis: Axis = "in", ragged: Ragged = "pad") -> Self:
        """Read patterns in any form; `axis` and `ragged` apply to texts, since pattern objects have their own.

        Raises:
            PatternError: As `parse` does; also if a pattern or a selector has another type.
        """
        _check_types(patterns)
        if isinstance(patterns, str):
            return cls.parse([patterns], axis, ragged)
        if isinstance(patterns, Mapping):
            read = partial(parse, axis=axis, ragged=ragged)
            rules = {
                selector: read(pattern) if isinstance(pattern, str) else pattern
                for selector, pattern in patterns.items()
            }
            if not rules:
                raise PatternError("there is no pattern")
            return cls(rules.pop(EVERYTHING, None), rules)
        return cls.parse(patterns, axis, ragged) if isinstance(patterns, Sequence) else cls(patterns)

    @property
    def first(self) -> Pattern:
        """The default, or the pattern of the first rule if there is no default."""
        return self.default or next(iter(self.rules.values()))

    @property
    def is_single(self) -> bool:
        """Whether there are no rules, so that all tensors have the default."""
        return not self.rules

    def assign(self, names: Sequence[str]) -> dict[str, Pattern]:
        """Return the pattern of each tensor that has one.

        A selector is the full name of a tensor; else a glob that matches names; else a part of names between dots,
        such as `mlp` or `self_attn.q_proj`. If several rules select a tensor, a full name has priority over a glob and
        a glob over a part; of two globs or two parts, the later one applies.

        Raises:
            UnmatchedSelectorError: If a selector selects no tensor.
        """
        all_names = frozenset(names)
        kinds = {selector: "name" if selector in all_names else _kind(selector, names) for selector in self.rules}
        patterns = dict.fromkeys(names, self.default)
        for kind in ("part", "glob"):
            for selector, pattern in self.rules.items():
                if kinds[selector] == kind:
                    patterns |= {name: pattern for name in names if _selects(selector, name, kind)}
        patterns |= {selector: pattern for selector, pattern in self.rules.items() if kinds[selector] == "name"}
        return {name: pattern for name, pattern in patterns.items() if pattern is not None}

    def selected(self, selector: str, names: Sequence[str]) -> list[str]:
        """Return all tensors that a selector selects, even if another rule with priority decides their pattern.

        Raises:
            UnmatchedSelectorError: If there are none.
        """
        kind = "name" if selector in names else _kind(selector, names)
        return [selector] if kind == "name" else [name for name in names if _selects(selector, name, kind)]

    def __str__(self) -> str:
        default = [] if self.default is None else [str(self.default)]
        return ", ".join(default + [f"{selector}={pattern}" for selector, pattern in self.rules.items()])


class UnmatchedSelectorError(PatternError):
    """The selector of a pattern selects no tensor.

    Attributes:
        selector: The selector.
    """

    def __init__(self, selector: str) -> None:
        super().__init__(
            f"pattern {selector[:512]!r}=...: no tensor has this name, matches this glob, or has this part in its name"
        )
        self.selector = selector


def _check_types(patterns: object) -> None:
    if isinstance(patterns, Mapping):
        is_valid = all(isinstance(each, str) for each in patterns) and all(
            isinstance(each, str | Pattern) for each in patterns.values()
        )
    elif isinstance(patterns, Sequence) and not isinstance(patterns, bytes):
        is_valid = all(isinstance(each, str) for each in patterns)
    else:
        is_valid = isinstance(patterns, Pattern)
    if not is_valid:
        raise PatternError(
            f"pattern={patterns!r}: expected a pattern or its text, several texts, or patterns by selector"
        )


def _split(text: str, axis: Axis, ragged: Ragged) -> tuple[str | None, Pattern]:
    """Return the selector and the pattern of a text; the selector is None for the default.

    They are separated by the last `=` that is not part of a `<=`: names of tensors may have a `=`, patterns only `<=`.
    """
    separator = max((place.start() for place in re.finditer(r"(?<!<)=", text)), default=None)
    if separator is None:
        return None, parse(text, axis=axis, ragged=ragged)
    selector, pattern_text = text[:separator], text[separator + 1 :]
    selector = selector.strip()
    if not selector or not pattern_text.strip():
        raise PatternError(f"{text[:700]!r} is not SELECTOR=PATTERN, such as 'mlp=2:4'")
    return None if selector == EVERYTHING else selector, parse(pattern_text, axis=axis, ragged=ragged)


def _kind(selector: str, names: Sequence[str]) -> str:
    """Return what a selector that is no full name is: a `glob` that matches some name, or a `part` of one.

    Raises:
        UnmatchedSelectorError: If it is neither.
    """
    for kind in ("glob", "part"):
        if any(_selects(selector, name, kind) for name in names):
            return kind
    raise UnmatchedSelectorError(selector)


def _selects(selector: str, name: str, kind: str) -> bool:
    """Return whether a selector of this kind, `glob` or `part`, selects a name."""
    return matches(name, selector) if kind == "glob" else f".{selector}." in f".{name}."
