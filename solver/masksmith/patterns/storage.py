"""Storage: bytes of a masked weight in the formats that kernels and files use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HybridCounts:
    """Counts of the data that a kernel for dense and n:m blocks stores for a weight with a hybrid mask.

    Attributes:
        blocks: Number of blocks, edge blocks included.
        values: Number of values: all values of dense blocks, and `n` of every `m` in each row of the other blocks.
        index_bits: Bits of all positions: each of the `n` values has one of `m` positions, in `ceil(log2(m))` bits.
    """

    blocks: int
    values: int
    index_bits: int


@dataclass(frozen=True, slots=True)
class MaskCounts:
    """Counts of a mask that is viewed as the matrix `[out, prod(kernel) * in]`.

    Attributes:
        rows, cols: Size of the matrix.
        kept: Entries kept.
        block: Height and width of the blocks that `blocks` counts.
        blocks: Number of blocks with any kept entry, edge blocks included; None if they were not counted.
        is_two_four: Whether at most 2 entries are kept in each group; a row is cut into groups of 4 entries.
        hybrid: Counts of a mask of a hybrid pattern, else None.
    """

    rows: int
    cols: int
    kept: int
    block: tuple[int, int]
    blocks: int | None
    is_two_four: bool
    hybrid: HybridCounts | None = None

    @property
    def entries(self) -> int:
        """Number of entries."""
        return self.rows * self.cols


def storage(counts: MaskCounts, item_bytes: int = 2, index_bytes: int = 4) -> Mapping[str, int | None]:
    """Return the number of bytes of a masked weight by format, values and indices together.

    - `dense`: every entry.
    - `bitmask`: kept values, and one bit for each entry, with rows padded to whole bytes.
    - `csr`: kept values, a column index for each, and `rows + 1` row pointers.
    - `coo`: kept values, and two indices for each.
    - `bsr`: all values of each block with any kept entry, a column index for each of these blocks, and
      `block rows + 1` pointers; None if blocks were not counted.
    - `two_four`: two values of every four, and 2 bits of metadata for each value; None if the mask is not 2:4.
    - `hybrid`, for hybrid patterns only: all values of dense blocks; n values of every m of the other blocks, and their
      positions; for each block an index (where its values begin) and a bit (whether it is dense).

    Args:
        counts: Counts of the mask, such as the result of `masksmith.measures.count`.
        item_bytes: Size of a value: 2 for half precision, 4 for single.
        index_bytes: Size of an index or pointer.

    Raises:
        ValueError: If a size is not positive.
    """
    if min(item_bytes, index_bytes) < 1:
        raise ValueError(f"item_bytes={item_bytes} and index_bytes={index_bytes} must be positive")
    rows, cols, kept = counts.rows, counts.cols, counts.kept
    height, width = counts.block
    two_four_values = rows * -(-cols // 4) * 2
    pointers = (-(-rows // height) + 1) * index_bytes
    bsr = None if counts.blocks is None else counts.blocks * (height * width * item_bytes + index_bytes) + pointers
    sizes = {
        "dense": counts.entries * item_bytes,
        "bitmask": kept * item_bytes + rows * -(-cols // 8),
        "csr": kept * (item_bytes + index_bytes) + (rows + 1) * index_bytes,
        "coo": kept * (item_bytes + 2 * index_bytes),
        "bsr": bsr,
        "two_four": two_four_values * item_bytes + -(-two_four_values // 4) if counts.is_two_four else None,
    }
    if counts.hybrid is not None:
        values, index_bits, blocks = counts.hybrid.values, counts.hybrid.index_bits, counts.hybrid.blocks
        sizes["hybrid"] = values * item_bytes + -(-index_bits // 8) + blocks * index_bytes + -(-blocks // 8)
    return sizes
