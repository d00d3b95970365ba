"""What a kernel is: a declaration, a way to pack a weight, and a product with what was packed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from .declaration import Declaration

if TYPE_CHECKING:
    import torch

    Product = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Operand:
    """The weight of a case, as a kernel gets it.

    Attributes:
        matrix: A, masked, `[rows, cols]`, contiguous: W forward, W^T backward.
        unmasked: The same before it was masked.
        sample: Activations X, `[batch, cols]`, contiguous, for whoever tunes.
        budget: n and m, where at most n of every m entries along a row of A are kept.
        block: Height and width of A's blocks, where it has some.
        threads: Threads that a CPU kernel may use.
    """

    matrix: torch.Tensor
    unmasked: torch.Tensor
    sample: torch.Tensor
    budget: tuple[int, int] | None
    block: tuple[int, int] | None
    threads: int = 1


@dataclass(frozen=True)
class Packed:
    """A weight in a kernel's own format.

    Attributes:
        ways: Ways through the product, by name: each gives `X A^T`, `[batch, rows]`, contiguous. The fastest is timed.
        weight_bytes: What the format takes.
        notes: What the kernel says of itself, for the report.
        tune: Searches, once for this shape, what makes the kernel fast; gives notes. Timed apart from packing.
    """

    ways: Mapping[str, Product]
    weight_bytes: int
    notes: Mapping[str, str] = field(default_factory=dict)
    tune: Callable[[], Mapping[str, str]] | None = None


@runtime_checkable
class Kernel(Protocol):
    """A way to multiply by a masked weight. Importing it must not import torch."""

    @property
    def declaration(self) -> Declaration:
        """What it can do."""
        ...

    def obstacle(self, device: str) -> str | None:
        """Say why it cannot run here at all (a library is missing, the device is another), or None."""
        ...

    def pack(self, operand: Operand) -> Packed:
        """Bring a weight into its format."""
        ...


def torch_obstacle() -> str | None:
    """Say that torch is not installed, or None where it is."""
    return None if find_spec("torch") else "it needs torch: pip install 'masksmith[bench]'"
