"""The protocol of kernels: a declaration, packing of a weight, and the product with the packed weight."""

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
    """The weight of a case, with what kernels may use to pack and tune it.

    Attributes:
        matrix: The masked matrix A, `[rows, cols]`, contiguous. A is the weight W in the forward pass, and its
            transpose W^T in the backward pass.
        unmasked: A before it was masked.
        sample: Activations X, `[batch, cols]`, contiguous, for tuning.
        budget: (n, m) if the pattern implies that at most n of every m entries along a row of A are kept, else None.
        block: Height and width of A's blocks; None if the pattern has no blocks.
        threads: Number of threads that a CPU kernel may use.
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
        ways: Implementations of the product, one or more, by name. Each maps activations X, `[batch, cols]`, to
            `X A^T`, `[batch, rows]`, contiguous. The fastest one is benchmarked.
        weight_bytes: Size of the packed weight, in bytes.
        notes: Texts for the report, by name.
        tune: Function that tunes the kernel for this shape and returns more notes; None if there is nothing to tune. It
            is called once, and its time is reported separately from packing.
    """

    ways: Mapping[str, Product]
    weight_bytes: int
    notes: Mapping[str, str] = field(default_factory=dict)
    tune: Callable[[], Mapping[str, str]] | None = None


@runtime_checkable
class Kernel(Protocol):
    """An implementation of the product with a masked weight. Importing its module must not import torch."""

    @property
    def declaration(self) -> Declaration:
        """The kernel's capabilities."""
        ...

    def obstacle(self, device: str) -> str | None:
        """Return why the kernel cannot run on this device at all, such as a missing library; None if it can run."""
        ...

    def pack(self, operand: Operand) -> Packed:
        """Convert a weight to the kernel's format."""
        ...


def obstacle_of(kernel: Kernel, device: str) -> str | None:
    """Return the kernel's `obstacle`; if it raises an error, as a kernel of another package may, that error."""
    try:
        return kernel.obstacle(device)
    except Exception as error:  # noqa: BLE001 - other packages may raise anything
        return f"{type(error).__name__}: {error}"


def torch_obstacle() -> str | None:
    """Return the `obstacle` of a kernel that needs torch: a message if torch is not installed, else None."""
    return None if find_spec("torch") else "it needs torch: pip install 'masksmith[bench]'"
