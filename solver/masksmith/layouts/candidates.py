"""What there is to choose from: tensors as plain values, wherever they are kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tensor that may be masked.

    Attributes:
        name: Its name, which no other candidate has.
        shape: Its shape.
        dtype: Its dtype, as safetensors names it.
        aliases: Other spellings of it, such as the module that it belongs to.
        dense_by_default: Why it is left out where `layers` is not given.
        unsupported_reason: Why it cannot be masked, known before shape and dtype are looked at.
    """

    name: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    aliases: tuple[str, ...] = ()
    dense_by_default: str | None = None
    unsupported_reason: str | None = None

    @property
    def spellings(self) -> tuple[str, ...]:
        """Everything that names it."""
        return (self.name, *self.aliases)
