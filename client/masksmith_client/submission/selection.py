"""Which weights are sent: by name, by glob, or everything that can be masked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from masksmith.patterns import Pattern, PatternError, matrix_shape
from masksmith_client._errors import InputError
from masksmith_wire.documents import Skipped
from masksmith_wire.dtypes import FLOAT_DTYPES, is_supported
from masksmith_wire.whole_tensors import outsized

from .weights import Weight

Globs = str | Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Selection:
    """What is sent, and what is left out with the reason."""

    chosen: list[Weight]
    skipped: list[Skipped]


def select(
    weights: Sequence[Weight], pattern: Pattern, layers: Globs = None, exclude: Globs = None, bound: str | None = None
) -> Selection:
    """Choose the weights to mask.

    Args:
        weights: All there are.
        pattern: What their shapes must suit.
        layers: Names or globs; a name that is spelled out must be maskable, what a glob meets may be skipped.
        exclude: Names or globs to leave out, whatever `layers` says.
        bound: What binds the whole of a tensor, so that a worker must have all of it, if anything does.

    Raises:
        InputError: If a name or glob meets nothing, a spelled-out weight cannot be masked, or nothing is left.
    """
    wanted, unwanted = listed(layers), listed(exclude)
    names = {weight.name for weight in weights}
    _check_met(wanted, names)
    chosen: list[Weight] = []
    skipped: list[Skipped] = []
    for weight in weights:
        if (wanted and not _meets(weight.name, wanted)) or _meets(weight.name, unwanted):
            continue
        explicit = weight.name in wanted
        reason = reason_against(weight, pattern, explicit=explicit)
        reason = reason or outsized(weight.shape, weight.dtype, bound)
        if reason is None:
            chosen.append(weight)
        elif explicit:
            raise InputError(f"{weight.name!r} cannot be masked: {reason}")
        else:
            skipped.append(Skipped(name=weight.name, reason=reason))
    if not chosen:
        raise InputError(_nothing_left(weights, skipped))
    return Selection(chosen, skipped)


def reason_against(weight: Weight, pattern: Pattern, *, explicit: bool = False) -> str | None:
    """Say why a weight cannot be masked, or None; integers are masked only when asked for by name."""
    if weight.trouble is not None:
        return weight.trouble
    if weight.dtype not in FLOAT_DTYPES and not (explicit and is_supported(weight.dtype)):
        return f"dtype {weight.dtype} is none that can be masked ({', '.join(sorted(FLOAT_DTYPES))})"
    try:
        matrix_shape(weight.shape)
        pattern.grid(weight.shape)
    except PatternError as error:
        return str(error)
    return None


def listed(globs: Globs) -> list[str]:
    """Give names or globs as a list."""
    if globs is None:
        return []
    return [globs] if isinstance(globs, str) else list(globs)


def _meets(name: str, globs: Sequence[str]) -> bool:
    return any(name == glob or fnmatchcase(name, glob) for glob in globs)


def _check_met(wanted: Sequence[str], names: set[str]) -> None:
    for glob in wanted:
        if not any(_meets(name, [glob]) for name in names):
            some = ", ".join(sorted(names)[:5]) or "none at all"
            raise InputError(
                f"no tensor is called {glob!r}; there are {len(names)}: {some}{', ...' * (len(names) > 5)}"
            )


def _nothing_left(weights: Sequence[Weight], skipped: Sequence[Skipped]) -> str:
    if not weights:
        return "there are no tensors at all"
    if not skipped:
        return "every tensor is excluded"
    return f"none of {len(skipped)} tensor(s) can be masked; {skipped[0].name!r}: {skipped[0].reason}"
