"""Which rank solves which rows, and one result from those of the ranks."""

from types import SimpleNamespace

import pytest
import torch
from torch.distributed.tensor import Replicate, Shard

import masksmith as ms
from masksmith_client.training.refresh_worker.messages import LayerResult, RefreshResponse
from masksmith_client.training.shares import Share, divide, merge

ROWS = (Shard(0),)


def layer(rows, placements=ROWS, ranks=(0, 1, 2), layout=None):
    mesh = SimpleNamespace(ndim=len(placements), size=lambda: len(ranks), mesh=torch.tensor(ranks))
    weight = SimpleNamespace(device_mesh=mesh, placements=placements)
    return SimpleNamespace(name="a", weight=weight, shape=(rows, 8), layout=layout)


def bounds(*layers, pattern="transposable 2:4", world_size=3, **options):
    shares = divide(layers, None if pattern is None else ms.parse(pattern, **options), world_size)
    return [(one.rank, one.first, one.last) for one in shares["a"]]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (24, [(0, 0, 8), (1, 8, 16), (2, 16, 24)]),
        (22, [(0, 0, 8), (1, 8, 16), (2, 16, 22)]),
        (4, [(0, 0, 4)]),
        (12, [(0, 0, 4), (1, 4, 8), (2, 8, 12)]),
        (18, [(0, 0, 18)]),
    ],
    ids=["even", "ragged", "one tile crosses borders: gathered", "one tile each", "a tile crosses a border: gathered"],
)
def test_ranks_solve_their_own_rows_where_these_are_whole_tiles(rows, expected):
    assert bounds(layer(rows)) == expected


def test_other_placements_patterns_and_scores_need_the_whole_layer():
    whole = [(0, 0, 24)]
    assert bounds(layer(24, (Shard(1),))) == whole
    assert bounds(layer(24, (Replicate(),))) == whole
    assert bounds(layer(24, (Shard(0), Shard(0)))) == whole
    assert bounds(layer(24, layout="[out, in] of several matrices")) == whole
    assert bounds(layer(24), pattern=None) == whole
    assert bounds(layer(24), pattern="50%") == whole
    assert bounds(layer(24, ranks=(0, 1)), world_size=4) == whole


def test_rows_follow_tiles_and_ranks_the_mesh():
    assert bounds(layer(18), pattern="2:4") == [(0, 0, 6), (1, 6, 12), (2, 12, 18)]
    assert bounds(layer(18), pattern="2:4", axis="out") == [(0, 0, 18)]
    assert bounds(layer(24, ranks=(2, 0, 1))) == [(2, 0, 8), (0, 8, 16), (1, 16, 24)]


def test_gathered_layers_go_around_the_ranks():
    layers = [layer(18) for _ in range(4)]
    for number, one in enumerate(layers):
        one.name = str(number)
    owners = [parts[0].rank for parts in divide(layers, ms.parse("transposable 2:4"), 3).values()]
    assert owners == [0, 1, 2, 0]


SHARES = {"a": [Share(0, 0, 4), Share(1, 4, 8)]}


def solved(objective, bound, **options):
    gap = (bound - objective) / bound
    fields = {"status": "optimal" if gap == 0 else "feasible", "gap": gap, "retained": objective / 10}
    return LayerResult(objective=objective, upper_bound=bound, **fields, **options)


def responses(*results):
    return [RefreshResponse(step=3, layers={"a": result}) for result in results]


def test_the_proof_of_a_layer_is_that_of_its_parts():
    proofs = {}
    first = solved(6.0, 6.0, added=1, dropped=2), solved(3.0, 4.0, added=4, dropped=8)
    result = merge(responses(*first), SHARES, proofs).layers["a"]
    assert (result.objective, result.upper_bound, result.status) == (9.0, 10.0, "feasible")
    assert result.gap == pytest.approx(0.1)
    assert result.retained == pytest.approx(9 / 20)
    assert (result.added, result.dropped) == (5, 10)
    # A part that was not solved again still has its last proof, and no entry of it changed.
    again = responses(LayerResult(unchanged=True), solved(5.0, 5.0, added=1, dropped=1))
    result = merge(again, SHARES, proofs).layers["a"]
    assert (result.objective, result.upper_bound, result.status, result.gap) == (11.0, 11.0, "optimal", 0.0)
    assert (result.added, result.dropped) == (1, 1)


@pytest.mark.parametrize("unknown", ["objective", "retained"])
def test_what_is_unknown_of_a_part_is_unknown_of_the_layer(unknown):
    parts = solved(6.0, 6.0), solved(3.0, 4.0).model_copy(update={unknown: None})
    result = merge(responses(*parts), SHARES, {}).layers["a"]
    assert result.retained is None
    assert (result.objective, result.gap) == ((None, None) if unknown == "objective" else (9.0, pytest.approx(0.1)))


def test_a_layer_without_one_of_its_parts_keeps_its_mask():
    proofs = {}
    unchanged = LayerResult(unchanged=True)
    assert merge(responses(unchanged, unchanged), SHARES, proofs).layers["a"].unchanged
    result = merge(responses(solved(1.0, 1.0), LayerResult(error="NaN at [5, 0]")), SHARES, proofs).layers["a"]
    assert result.error == "NaN at [5, 0]"
    assert not result.has_new_mask
    failed = [*responses(solved(1.0, 1.0)), RefreshResponse(step=3, failure="the service is gone")]
    assert merge(failed, SHARES, proofs).failure == "the service is gone"


def test_a_part_that_was_solved_while_another_rank_failed_keeps_its_proof():
    """Its rank says `unchanged` of it in the next request, if the mask is the one that the layer has."""
    proofs = {}
    failed = [*responses(solved(6.0, 6.0)), RefreshResponse(step=3, failure="the service is gone")]
    assert merge(failed, SHARES, proofs).failure == "the service is gone"
    result = merge(responses(LayerResult(unchanged=True), solved(3.0, 4.0)), SHARES, proofs).layers["a"]
    assert (result.objective, result.upper_bound) == (9.0, 10.0)
