"""A method with its options, such as `"ria power=0.7"`: parsing, ranges, formatting; shared by scores and updates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

OptionValue = float | bool | str | tuple[int, int]
MAX_CHARACTERS = 100
"""Maximum length of a text that is accepted as a field of a document."""
MAX_WORDS = 20
"""Maximum number of words that are parsed; no method has so many options.

The number of words needs no check of its own: if a text has more words, at least one of the first 20 is unknown,
repeated or invalid, and the text is refused for that.
"""


@dataclass(frozen=True)
class OptionType:
    """Type of an option.

    Attributes:
        allowed: Describes the values that `parse` accepts, for messages.
        parse: Parses the text of a value; returns None if it is invalid.
        range: Least and largest number that the library accepts; `parse` does not check them. None if the library
            accepts all values that `parse` returns.
    """

    allowed: str
    parse: Callable[[str], OptionValue | None]
    range: tuple[float, float] | None = None


OptionTypes = Mapping[str, OptionType]


@dataclass(frozen=True)
class Method:
    """A method and the options that were set; these are keyword arguments of the library function of the method.

    As a field of a document, a method is serialized as text, and parsed when the document is validated.

    Attributes:
        name: Name of the method.
        options: Values of the options that were set, by name.
        plural: Noun for methods of this kind, in messages.
        methods: The types of each method's options, by the method's name.
    """

    name: str
    options: Mapping[str, Any]

    plural: ClassVar[str]
    methods: ClassVar[Mapping[str, OptionTypes]]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a method and its options; `parse(str(method)) == method`.

        Raises:
            ValueError: If the method or an option is unknown, an option is repeated, or a value is invalid.
        """
        name, *words = text.split()[:MAX_WORDS] or [""]
        if name not in cls.methods:
            raise ValueError(f"{text[:80]!r} does not begin with one of the {cls.plural} {', '.join(cls.methods)}")
        options: dict[str, OptionValue] = {}
        for word in words:
            key, _, value = word.partition("=")
            try:
                if key in options:
                    raise ValueError(f"{key} is set twice")
                options[key] = _parse_option(name, cls.methods[name], key, value)
            except ValueError as error:
                raise ValueError(f"{text[:80]!r}: {error}") from None
        return cls(name, options)

    @property
    def out_of_range_reason(self) -> str | None:
        """Why the library refuses an option: its value is out of range; None if the values of all options are in range.

        Values out of range are parsed, so that the records of earlier jobs can be read; new jobs are refused.
        """
        for key, value in self.options.items():
            limits = self.methods[self.name][key].range
            if limits is not None and not limits[0] <= value <= limits[1]:
                return f"{key}={_format_option(value)} is not a number from {limits[0]:g} to {limits[1]:g}"
        return None

    def __str__(self) -> str:
        return " ".join(
            [self.name, *(f"{name}={_format_option(value)}" for name, value in sorted(self.options.items()))]
        )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.str_schema(max_length=MAX_CHARACTERS)
        return core_schema.no_info_wrap_validator_function(
            lambda value, parse: value if isinstance(value, cls) else parse(value),
            core_schema.no_info_after_validator_function(cls.parse, text),
            serialization=core_schema.to_string_ser_schema(when_used="always"),
        )


def parse_number(text: str) -> float | None:
    """Parse a finite number of at least 0, in ASCII digits; None for any other text."""
    if not text.isascii() or "_" in text:  # `float` accepts digits of other scripts, and underscores between digits.
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < math.inf else None


NUMBER = OptionType("a number of at least 0", parse_number)
POSITIVE = OptionType("a positive number", lambda text: parse_number(text) or None)
FLAG = OptionType("true or false", lambda text: {"true": True, "false": False}.get(text.lower()))


def number_from(least: float, largest: float) -> OptionType:
    """Return the type of an option whose value is a number with this `range`; `least` is at least 0."""
    unbounded = POSITIVE if least > 0 else NUMBER
    return OptionType(unbounded.allowed, unbounded.parse, (least, largest))


def choice(*allowed: str) -> OptionType:
    """Return the type of an option whose value is one of these words."""
    return OptionType(" or ".join(allowed), lambda text: text if text in allowed else None)


def _parse_option(method: str, types: OptionTypes, key: str, value: str) -> OptionValue:
    if key not in types:
        raise ValueError(f"{method} has no option {key[:40]!r} (it has: {', '.join(types) or 'none'})")
    parsed = types[key].parse(value)
    if parsed is None:
        raise ValueError(f"{key}={value[:40]!r} is not {types[key].allowed}")
    return parsed


def _format_option(value: OptionValue) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(value).lower() if isinstance(value, bool) else str(value)
