"""The grammar of a method and its options, such as `"ria power=0.7"`: the same for scores and for updates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

Option = float | bool | str | tuple[int, int]
MOST_LETTERS = 100
MOST_WORDS = 20


@dataclass(frozen=True)
class OptionKind:
    """What an option may be: `allowed` says it in words, `read` gives None for a text that is none of it."""

    allowed: str
    read: Callable[[str], Option | None]


Options = Mapping[str, OptionKind]


@dataclass(frozen=True)
class Method:
    """A method and those of its options that were set, as the library's function of that name takes them.

    As a field of a document it travels as text, and is parsed when the document is.
    """

    name: str
    options: Mapping[str, Any]

    plural: ClassVar[str]
    methods: ClassVar[Mapping[str, Options]]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a method and its options; `parse(str(method))` gives the method back.

        Raises:
            ValueError: Naming what is wrong.
        """
        name, *words = text.split()[:MOST_WORDS] or [""]
        if name not in cls.methods:
            raise ValueError(f"{text[:80]!r} is none of the {cls.plural} {', '.join(cls.methods)}")
        options: dict[str, Option] = {}
        for word in words:
            key, _, value = word.partition("=")
            try:
                if key in options:
                    raise ValueError(f"{key} is set twice")
                options[key] = _read(name, cls.methods[name], key, value)
            except ValueError as error:
                raise ValueError(f"{text[:80]!r}: {error}") from None
        return cls(name, options)

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{name}={_text(value)}" for name, value in sorted(self.options.items()))])

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.str_schema(max_length=MOST_LETTERS)
        return core_schema.no_info_wrap_validator_function(
            lambda value, read: value if isinstance(value, cls) else read(value),
            core_schema.no_info_after_validator_function(cls.parse, text),
            serialization=core_schema.to_string_ser_schema(when_used="always"),
        )


def number(text: str) -> float | None:
    """Read a number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < math.inf else None


NUMBER = OptionKind("a number of at least 0", number)
POSITIVE = OptionKind("a positive number", lambda text: number(text) or None)
FLAG = OptionKind("true or false", lambda text: {"true": True, "false": False}.get(text.lower()))


def choice(*allowed: str) -> OptionKind:
    """Make the kind of an option that is one of a few words."""
    return OptionKind(" or ".join(allowed), lambda text: text if text in allowed else None)


def _read(method: str, kinds: Options, key: str, value: str) -> Option:
    if key not in kinds:
        raise ValueError(f"{method} has no option {key[:40]!r} (it has: {', '.join(kinds) or 'none'})")
    option = kinds[key].read(value)
    if option is None:
        raise ValueError(f"{key}={value[:40]!r} is not {kinds[key].allowed}")
    return option


def _text(value: Option) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value).lower()
