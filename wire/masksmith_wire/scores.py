"""Scores as jobs name them: a method and its options, such as `"ria power=0.7"`, and what each is made from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Option = float | bool | str | tuple[int, int]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class ScoreMethod:
    """How a job scores its weights.

    Attributes:
        name: `magnitude`, `given`, `wanda`, `ria`, `sparsegpt`, `taylor`, `sipp` or `pfp`.
        options: Those that were set, as the library's function of that name takes them.
    """

    name: str
    options: Mapping[str, Option]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Statistics that it can be made from, the preferred one first; none if the weight is enough."""
        if self.name == "sparsegpt" and self.options:
            return ("gram",)
        if self.name == "ria" and self.options.get("power") == 0:
            return ()
        return _KINDS[self.name]

    @property
    def is_optional(self) -> bool:
        """Whether it does without a statistic too: `given` scores may be the tensors themselves."""
        return self.name == "given" or not self.kinds

    @property
    def block(self) -> tuple[int, int] | None:
        """Blocks that scores are summed over, if any: their rows must be scored together."""
        group = self.options.get("group")
        return group if isinstance(group, tuple) else None

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{name}={_text(value)}" for name, value in sorted(self.options.items()))])


def parse_scores(text: str) -> ScoreMethod:
    """Read a method and its options; `parse_scores(str(method))` gives the method back.

    Raises:
        ValueError: Naming what is wrong.
    """
    name, *words = text.split()[:20] or [""]
    if name not in _OPTIONS:
        raise ValueError(f"{text[:80]!r} is none of the scores {', '.join(_OPTIONS)}")
    options: dict[str, Option] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in _OPTIONS[name]:
            known = ", ".join(_OPTIONS[name]) or "none"
            raise ValueError(f"{text[:80]!r}: {name} has no option {key[:40]!r} (it has: {known})")
        if key in options:
            raise ValueError(f"{text[:80]!r}: {key} is set twice")
        found = _OPTIONS[name][key](value)
        if found is None:
            raise ValueError(f"{text[:80]!r}: {key}={value[:40]!r} is not {_ALLOWED[key]}")
        options[key] = found
    if options.get("group") == "in" and options.get("joint"):
        raise ValueError(f"{text[:80]!r}: joint sums over input channels need all rows at once; use the library")
    return ScoreMethod(name, options)


def canonical_scores(text: str) -> str:
    """Give the one spelling of scores; raises as `parse_scores` does."""
    return str(parse_scores(text))


def statistic_key(name: str, kind: str) -> str:
    """Name a weight's statistic in a calibration file; scores have the weight's own name."""
    return name if kind == "scores" else f"{name}/{kind}"


def statistic_misfit(kind: str, shape: Shape, weight: Shape) -> str | None:
    """Say why a statistic of this shape cannot be a weight's, or None when it can."""
    inputs, flat = weight[1:], math.prod(weight[1:])
    if kind in ("norms", "inverse_diagonal"):
        fits, wanted = shape in (inputs, (flat,), weight[1:2]), f"[{flat}]"
    elif kind == "gram":
        fits, wanted = shape == (flat, flat), f"[{flat}, {flat}]"
    elif kind == "activations":
        fits, wanted = len(shape) == 2 and shape[0] > 0 and shape[1] == flat, f"[samples, {flat}]"
    else:
        fits, wanted = shape == weight, f"{list(weight)}"
    return (
        None if fits else f"{kind} of shape {list(shape)} are not those of a weight {list(weight)}: expected {wanted}"
    )


def _positive(text: str) -> float | None:
    number = _number(text)
    return number if number is not None and number > 0 else None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number < math.inf else None


def _choice(*allowed: str) -> Callable[[str], str | None]:
    return lambda text: text if text in allowed else None


def _flag(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text.lower())


def _group(text: str) -> str | tuple[int, int] | None:
    if text in ("in", "out"):
        return text
    sides = text.split("x")
    if len(sides) != 2 or not all(side.isascii() and side.isdecimal() and len(side) < 7 for side in sides):
        return None
    rows, cols = (int(side) for side in sides)
    return (rows, cols) if rows and cols else None


def _text(value: Option) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value).lower()


_OPTIONS: Mapping[str, Mapping[str, Callable[[str], Option | None]]] = {
    "magnitude": {"power": _positive},
    "given": {},
    "wanda": {},
    "ria": {"power": _number},
    "sparsegpt": {"damping": _number, "form": _choice("diagonal", "sequential")},
    "taylor": {"group": _group, "joint": _flag},
    "sipp": {"reduce": _choice("mean", "max")},
    "pfp": {},
}
_ALLOWED = {
    "power": "a positive number",
    "damping": "a number of at least 0",
    "form": "diagonal or sequential",
    "group": "in, out or ROWSxCOLS",
    "joint": "true or false",
    "reduce": "mean or max",
}
_KINDS = {
    "magnitude": (),
    "given": ("scores",),
    "wanda": ("norms",),
    "ria": ("norms",),
    "sparsegpt": ("inverse_diagonal", "gram"),
    "taylor": ("gradient_rms", "gradient"),
    "sipp": ("activations",),
    "pfp": ("activations",),
}
KINDS = tuple(sorted({kind for kinds in _KINDS.values() for kind in kinds}))
