"""Divide the rows of layers among the ranks that solve them, and merge the results of the ranks.

If a weight is divided by rows among all ranks, each rank solves its own rows. For this, the rows of each rank must be
whole tiles, the weight must have no layout (it is one matrix or a convolution), and it must be scored by magnitude.
Other sharded weights are gathered, one at a time, and each is solved by one rank; the ranks take turns, so that none
holds the whole model. Rank 0 solves the weights that are not sharded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from masksmith.patterns import Pattern, TilePattern

from .masked_layer import MaskedLayer
from .refresh_worker.messages import LayerResult, RefreshResponse
from .refresh_worker.sources import sum_of_parts
from .sharding import is_dtensor


@dataclass(frozen=True)
class Share:
    """The rows `first:last` of a layer; the rank `rank` requests their mask."""

    rank: int
    first: int
    last: int

    def shape(self, layer_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of these rows of a layer."""
        return (self.last - self.first, *layer_shape[1:])


Shares = Mapping[str, Sequence[Share]]
"""The shares of each layer by its name, in the order of their rows."""
Proofs = MutableMapping[tuple[str, int], LayerResult]
"""For each share, by the layer's name and the rank: the last result that has a new mask."""


def divide(layers: Iterable[MaskedLayer], pattern: Pattern | None, world_size: int) -> Shares:
    """Divide the layers among the ranks.

    Args:
        layers: The masked layers.
        pattern: The pattern; None if whole layers are needed, as for scores that the training loop computes.
        world_size: The number of ranks.
    """
    shares: dict[str, Sequence[Share]] = {}
    for number, layer in enumerate(layers):
        owner = number % world_size if is_dtensor(layer.weight) else 0
        row_shares = [] if pattern is None else _row_shares(layer, pattern, world_size)
        shares[layer.name] = row_shares or [Share(owner, 0, layer.shape[0])]
    return shares


def _row_shares(layer: MaskedLayer, pattern: Pattern, world_size: int) -> list[Share]:
    """Return a share for each rank that owns rows; no shares if the rows of the ranks cannot be solved separately.

    The rows can be solved separately if the weight has no layout and is divided by rows alone, among all ranks, and the
    rows of each rank are whole tiles.
    """
    weight: Any = layer.weight
    if not is_dtensor(weight) or not isinstance(pattern, TilePattern) or layer.layout is not None:
        return []
    mesh, placements = weight.device_mesh, weight.placements
    if mesh.ndim != 1 or mesh.size() != world_size or type(placements[0]).__name__ != "Shard" or placements[0].dim != 0:
        return []
    rows, tile = layer.shape[0], pattern.tile
    shard_rows = -(-rows // world_size)
    # The tiles of a pattern along `out` are those of the transposed weight.
    if shard_rows % (tile.cols if pattern.axis == "out" else tile.rows):
        return []
    shares = []
    for number, rank in enumerate(mesh.mesh.tolist()):
        first = number * shard_rows
        if first < rows:
            shares.append(Share(rank, first, min(rows, first + shard_rows)))
    return shares


def merge(responses: Sequence[RefreshResponse], shares: Shares, proofs: Proofs) -> RefreshResponse:
    """Merge the responses of all ranks.

    Args:
        responses: The responses, in the order of the ranks.
        shares: The shares of each layer.
        proofs: Changed in place: results with a new mask are stored here, also if the request of another rank failed.

    Returns:
        The result of each layer; or, if whole requests failed, the failure of the first rank among these.
    """
    step = responses[0].step
    for rank, response in enumerate(responses):
        # Stored even if another rank failed: this rank's next response may only say `unchanged`, without a proof.
        proofs.update({(name, rank): result for name, result in response.layers.items() if result.has_new_mask})
    for response in responses:
        if response.failure is not None:
            return RefreshResponse(step=step, failure=response.failure)
    layers = {name: _merge(name, responses, layer_shares, proofs) for name, layer_shares in shares.items()}
    return RefreshResponse(step=step, layers=layers)


def _merge(name: str, responses: Sequence[RefreshResponse], shares: Sequence[Share], proofs: Proofs) -> LayerResult:
    results = {share.rank: responses[share.rank].layers[name] for share in shares}
    parts = list(results.values())
    if len(parts) == 1:
        return parts[0]
    error = next((part.error for part in parts if part.error is not None), None)
    if error is not None:
        return LayerResult(error=error)
    if all(part.unchanged for part in parts):
        return LayerResult(unchanged=True)
    # The proof of an unchanged share is the one of its last solve.
    proof = sum_of_parts([proofs[name, rank] for rank in results])
    added, dropped = sum(part.added for part in parts), sum(part.dropped for part in parts)
    return proof.model_copy(update={"added": added, "dropped": dropped})
