"""Patterns by tensor: a default, and others for the tensors that a name, a glob or a part of a name means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from masksmith.patterns import Axis, Pattern, PatternError, Ragged, parse
from masksmith.patterns.matching import matches
from masksmith_client._errors import InputError


@dataclass(frozen=True, slots=True)
class TensorPatterns:
    """Which pattern each tensor has.

    Attributes:
        default: The pattern of all tensors that no rule means; without one they stay dense.
        rules: Patterns by the text that says which tensors they are for, in the order given.
    """

    default: Pattern | None
    rules: Mapping[str, Pattern] = field(default_factory=dict)

    @classmethod
    def parse(cls, texts: Sequence[str], axis: Axis = "in", ragged: Ragged = "pad") -> Self:
        """Read patterns such as `2:4` or `mlp=transposable 8:16`, all of one axis and treatment of ragged edges.

        Raises:
            InputError: If a pattern is malformed, or two are given for the same tensors.
        """
        default: Pattern | None = None
        rules: dict[str, Pattern] = {}
        for text in texts:
            selector, pattern = _split(text, axis, ragged)
            if selector in rules or (selector is None and default is not None):
                raise InputError(f"--pattern {text!r}: there is another pattern for the same tensors")
            if selector is None:
                default = pattern
            else:
                rules[selector] = pattern
        return cls(default, rules)

    def assign(self, names: Sequence[str]) -> dict[str, Pattern]:
        """Return the pattern of each tensor that has one.

        A rule is for the tensor of that full name; else for those that match it as a glob; else for those that have it
        among the parts of their names, as `mlp` or `self_attn.q_proj`. Of several rules a full name counts before a
        glob, a glob before a part, and the last one of the same kind.

        Raises:
            InputError: If a rule is for no tensor.
        """
        kinds = {selector: _kind(selector, names) for selector in self.rules}
        assigned = dict.fromkeys(names, self.default)
        for kind in ("part", "glob", "name"):
            for selector in (selector for selector, its_kind in kinds.items() if its_kind == kind):
                assigned |= {name: self.rules[selector] for name in names if _means(selector, name, kind)}
        return {name: pattern for name, pattern in assigned.items() if pattern is not None}

    def __str__(self) -> str:
        default = [] if self.default is None else [str(self.default)]
        return ", ".join(default + [f"{selector}={pattern}" for selector, pattern in self.rules.items()])


def _split(text: str, axis: Axis, ragged: Ragged) -> tuple[str | None, Pattern]:
    selector, equals, rest = text.partition("=")
    is_rule = bool(equals) and not selector.rstrip().endswith("<")  # '<=2:4' is a pattern
    try:
        pattern = parse(rest if is_rule else text, axis=axis, ragged=ragged)
    except PatternError as error:
        raise InputError(str(error)) from None
    return (selector.strip() if is_rule else None), pattern


def _kind(selector: str, names: Sequence[str]) -> str:
    for kind in ("name", "glob", "part"):
        if any(_means(selector, name, kind) for name in names):
            return kind
    raise InputError(f"--pattern {selector!r}=...: no tensor has this name, matches it, or has it among its parts")


def _means(selector: str, name: str, kind: str) -> bool:
    if kind == "name":
        return name == selector
    return matches(name, selector) if kind == "glob" else f".{selector}." in f".{name}."
