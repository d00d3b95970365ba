"""Scores made shard by shard are the library's scores of the whole tensor, from no more bytes than they need."""

import numpy as np
import pytest
import safetensors.numpy
from blake3 import blake3

import masksmith as ms
from masksmith.layouts import Layout
from masksmith_state.blobs.names import upload_name
from masksmith_state.blobs.store import BlobStore
from masksmith_state.jobs.shards import PlannedTensor
from masksmith_wire.headers import header_length, parse_header
from masksmith_wire.scores import ScoreMethod
from masksmith_worker.failures import failure_report
from masksmith_worker.stages import memory, score
from masksmith_worker.stages.load import InputReader
from masksmith_worker.stages.score import Scoring

RNG = np.random.default_rng(5)
WEIGHT = RNG.standard_normal((24, 12)).astype(np.float32)
CONV = RNG.standard_normal((12, 4, 3, 1)).astype(np.float32)
INPUTS = RNG.standard_normal((50, 12)).astype(np.float32)
NORMS, GRAM = np.linalg.norm(INPUTS, axis=0).astype(np.float64), (INPUTS.T @ INPUTS).astype(np.float64)
GRADIENT = RNG.standard_normal(WEIGHT.shape).astype(np.float32)


@pytest.fixture
def plan(store):
    """Store a weight, and what its scores are made from; gives the located tensor."""

    def located(name, array):
        data = safetensors.numpy.save({"pad": np.zeros(3, np.float32), name: np.ascontiguousarray(array)})
        digest = blake3(data).hexdigest()
        store.put(upload_name(digest), data)
        entry = parse_header(data[8 : 8 + header_length(data)]).tensors[name]
        return PlannedTensor(name=name, digest=digest, dtype=entry.dtype, shape=list(entry.shape), start=entry.start)

    def plan(weight, kind=None, statistic=None):
        tensor = located("w", weight)
        return tensor if kind is None else tensor.model_copy(update={"statistic": located(kind, statistic)})

    return plan


def by_shards(store, tensor, text, step):
    rows = range(0, tensor.shape[0], step)
    parts = [
        Scoring(InputReader(store), tensor, ScoreMethod.parse(text), lambda: None).rows(
            first, min(first + step, tensor.shape[0])
        )
        for first in rows
    ]
    return np.concatenate(parts)


@pytest.mark.parametrize("step", [5, 24])
@pytest.mark.parametrize(
    ("text", "kind", "statistic", "expected"),
    [
        ("magnitude power=2", None, None, lambda w: ms.magnitude(w, 2)),
        ("given", "scores", abs(GRADIENT), lambda w: abs(GRADIENT)),
        ("wanda", "norms", NORMS, lambda w: ms.wanda(w, NORMS)),
        ("ria", "norms", NORMS, lambda w: ms.ria(w, NORMS)),
        ("ria power=0", None, None, lambda w: ms.ria(w, power=0)),
        ("sparsegpt", "gram", GRAM, lambda w: ms.sparsegpt(w, gram=GRAM)),
        (
            "sparsegpt form=sequential damping=0.1",
            "gram",
            GRAM,
            lambda w: ms.sparsegpt(w, gram=GRAM, form="sequential", damping=0.1),
        ),
        ("sparsegpt", "inverse_diagonal", NORMS, lambda w: ms.sparsegpt(w, inverse_diagonal=NORMS)),
        ("taylor", "gradient", GRADIENT, lambda w: ms.taylor(w, GRADIENT)),
        ("taylor group=out", "gradient", GRADIENT, lambda w: ms.taylor(w, GRADIENT, "out")),
        ("taylor group=in", "gradient_rms", GRADIENT, lambda w: ms.taylor(w, GRADIENT, "in")),
        ("taylor group=7x5 joint=true", "gradient", GRADIENT, lambda w: ms.taylor(w, GRADIENT, (7, 5), joint=True)),
        ("sipp", "activations", INPUTS, lambda w: ms.sipp(w, INPUTS)),
        ("sipp reduce=max", "activations", INPUTS, lambda w: ms.sipp(w, INPUTS, reduce="max")),
        ("pfp", "activations", INPUTS, lambda w: ms.pfp(w, INPUTS)),
    ],
)
def test_shards_have_the_librarys_scores(store, plan, monkeypatch, text, kind, statistic, expected, step):
    monkeypatch.setattr(score, "SLICE_ENTRIES", 70)
    found = by_shards(store, plan(WEIGHT, kind, statistic), text, step)
    np.testing.assert_allclose(found, expected(WEIGHT), rtol=2e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("text", "kind", "statistic", "expected"),
    [
        ("taylor group=in", "gradient", GRADIENT * 1e-15, lambda w: ms.taylor(w, GRADIENT * 1e-15, "in")),
        ("pfp", "activations", INPUTS, lambda w: ms.pfp(w, INPUTS)),
    ],
)
def test_scores_of_channels_of_a_float64_weight_are_float64(store, plan, monkeypatch, text, kind, statistic, expected):
    monkeypatch.setattr(score, "SLICE_ENTRIES", 70)
    weight, statistic = WEIGHT.astype(np.float64) * 1e-15, statistic.astype(np.float64)
    found = by_shards(store, plan(weight, kind, statistic), text, 5)
    assert found.dtype == np.float64
    assert found.min() > 0
    np.testing.assert_allclose(found, expected(weight), rtol=1e-12)


@pytest.mark.parametrize(("dtype", "change"), [(np.float32, 1e19), (np.float64, 1e154)])
def test_a_sum_over_slices_that_overflows_is_refused_as_by_the_library(store, plan, monkeypatch, dtype, change):
    weight, gradient = np.full((24, 12), change, dtype), np.ones((24, 12), dtype)
    with pytest.raises(ms.ScoresError) as expected:
        ms.taylor(weight, gradient, "in", name="w")
    monkeypatch.setattr(score, "SLICE_ENTRIES", 12)
    with pytest.raises(ms.ScoresError) as raised:
        by_shards(store, plan(weight, "gradient", gradient), "taylor group=in", 24)
    assert str(raised.value) == str(expected.value)


@pytest.mark.parametrize(
    ("text", "kind", "statistic", "expected"),
    [
        ("wanda", "norms", NORMS, lambda w: ms.wanda(w, NORMS)),
        ("wanda", "norms", NORMS[:4], lambda w: ms.wanda(w, NORMS[:4])),
        ("ria", "norms", NORMS.reshape(4, 3, 1), lambda w: ms.ria(w, NORMS)),
        ("pfp", "activations", INPUTS, lambda w: ms.pfp(w, INPUTS)),
        ("sparsegpt", "gram", GRAM, lambda w: ms.sparsegpt(w, gram=GRAM)),
    ],
)
def test_convolutions_too(store, plan, text, kind, statistic, expected):
    found = by_shards(store, plan(CONV, kind, statistic), text, 5)
    np.testing.assert_allclose(found, expected(CONV), rtol=2e-6)


class Counting(BlobStore):
    """Counts the bytes that are read from uploads."""

    read = 0

    def get_range(self, name, start, stop):
        self.read += stop - start
        return super().get_range(name, start, stop)


@pytest.mark.parametrize(
    ("text", "kind", "statistic", "most"),
    [
        ("taylor", "gradient", GRADIENT, 2 * 4 * 12 * 4),
        ("wanda", "norms", NORMS, 4 * 12 * 4 + NORMS.nbytes),
        ("given", "scores", abs(GRADIENT), 4 * 12 * 4),
    ],
)
def test_a_shard_reads_no_more_than_it_needs(store, plan, text, kind, statistic, most):
    counting = Counting(store.url)
    tensor = plan(WEIGHT, kind, statistic)
    Scoring(InputReader(counting), tensor, ScoreMethod.parse(text), lambda: None).rows(8, 12)
    assert counting.read == most


def test_what_all_shards_share_is_worked_out_once(store, plan):
    tensor, counting = plan(WEIGHT, "gram", GRAM), Counting(store.url)
    first = Scoring(InputReader(counting), tensor, ScoreMethod.parse("sparsegpt"), lambda: None).rows(0, 12)
    before = counting.read
    again = Scoring(InputReader(counting), tensor, ScoreMethod.parse("sparsegpt"), lambda: None).rows(0, 12)
    assert (again == first).all()
    assert counting.read - before == 12 * 12 * 4
    other = Scoring(InputReader(counting), tensor, ScoreMethod.parse("sparsegpt damping=0.5"), lambda: None).rows(0, 12)
    assert not np.allclose(other, first)


def test_a_bad_statistic_is_named(runner, plan):
    bad = NORMS.copy()
    bad[3] = np.nan
    with pytest.raises(ms.scores.StatisticError, match="norms holds nan"):
        Scoring(InputReader(runner.store), plan(WEIGHT, "norms", bad), ScoreMethod.parse("wanda"), lambda: None).rows(
            0, 4
        )


@pytest.mark.parametrize(("norm", "message"), [(1e-6, "all scores underflow"), (1e5, "the score overflows")])
def test_scores_out_of_range_are_reported_by_name(store, plan, norm, message):
    tensor = plan(WEIGHT, "norms", np.full(12, norm))
    with pytest.raises(ms.ScoresError) as raised:
        Scoring(InputReader(store), tensor, ScoreMethod.parse("ria power=10"), lambda: None).rows(4, 8)
    error = failure_report(raised.value, tensor).error
    assert error.code == "invalid_scores"
    assert error.message.startswith(f"tensor 'w': {message} in float32")
    assert "; scale the weight or its statistic" in error.message
    assert error.index == (None if norm < 1 else [4, 0])


def test_all_gram_matrices_of_a_stack_with_two_axes_are_counted(store, plan, monkeypatch):
    weight, gram = (np.broadcast_to(matrix, (2, 3, *matrix.shape)).copy() for matrix in (WEIGHT, GRAM))
    tensor, layout = plan(weight, "gram", gram), Layout.parse("stack stack out in")
    scoring = Scoring(InputReader(store), tensor, ScoreMethod.parse("sparsegpt"), lambda: None)
    needed = int((memory.PEAK_MATRICES["sparsegpt"] + 5) * 8 * GRAM.size)
    monkeypatch.setattr(memory, "WHOLE_BYTES", 6 * 8 * GRAM.size - 1)
    monkeypatch.setattr(memory, "available_bytes", lambda: needed - 1)
    with pytest.raises(memory.InsufficientMemoryError, match=f"needs {needed} bytes"):
        scoring.matrices(layout, 0, 2)
    monkeypatch.setattr(memory, "available_bytes", lambda: needed)
    assert scoring.matrices(layout, 0, 2).shape == weight.shape


def test_a_gram_matrix_that_does_not_fit_is_refused_before_it_is_read(store, plan, monkeypatch):
    tensor, counting = plan(WEIGHT, "gram", GRAM), Counting(store.url)
    needed = int(memory.PEAK_MATRICES["sparsegpt"] * 8 * GRAM.size)
    monkeypatch.setattr(memory, "WHOLE_BYTES", 8 * GRAM.size - 1)
    monkeypatch.setattr(memory, "available_bytes", lambda: needed - 1)
    with pytest.raises(memory.InsufficientMemoryError, match=f"needs {needed} bytes .* can take {needed - 1};"):
        Scoring(InputReader(counting), tensor, ScoreMethod.parse("sparsegpt"), lambda: None).rows(0, 12)
    assert counting.read == 0


def scoring_of(store, tensor, text):
    return Scoring(InputReader(store), tensor, ScoreMethod.parse(text), lambda: None)


@pytest.mark.parametrize(
    ("text", "kind", "statistic"),
    [("magnitude power=2", None, None), ("wanda", "norms", NORMS), ("taylor", "gradient", GRADIENT)],
)
def test_scores_of_some_rows_may_all_underflow_as_long_as_those_of_others_do_not(
    store, plan, monkeypatch, text, kind, statistic
):
    monkeypatch.setattr(score, "SLICE_ENTRIES", 60)
    small, tensor = WEIGHT.copy(), plan(WEIGHT, kind, statistic)
    small[:8] *= np.float32(1e-41)
    expected = scoring_of(store, tensor, text).rows(8, 24)
    found = by_shards(store, plan(small, kind, statistic), text, 8)
    assert (found[8:] == expected).all()
    assert (found[:8] < 1e-37).all()
    with pytest.raises(ms.scores.ScoreUnderflowError, match="all scores underflow"):
        scoring_of(store, plan(WEIGHT * np.float32(1e-41), kind, statistic), text).rows(8, 16)


def test_scores_of_one_matrix_of_a_stack_may_underflow_in_its_shard(store, plan):
    weight, layout = np.stack([WEIGHT * np.float32(1e-30), WEIGHT]), Layout.parse("stack out in")
    scoring = scoring_of(store, plan(weight), "magnitude power=2")
    assert (scoring.matrices(layout, 0, 1) == 0).all()
    assert (scoring.matrices(layout, 1, 2) == WEIGHT[None] ** 2).all()


def test_the_index_of_an_invalid_entry_is_that_in_the_tensor_whatever_range_is_scored(store, plan, monkeypatch):
    large = GRADIENT.copy()
    large[21, 7] = 1e30
    monkeypatch.setattr(score, "SLICE_ENTRIES", 36)
    for text in ("taylor", "taylor group=in", "taylor group=5x2"):
        scoring = scoring_of(store, plan(WEIGHT, "gradient", large), text)
        with pytest.raises(ms.ScoresError, match="overflows") as raised:
            scoring.rows(18, 24)
        assert failure_report(raised.value, plan(WEIGHT)).error.index == [21, 7]
    stack = np.stack([WEIGHT, GRADIENT])
    norms = np.ones((2, 12))
    norms[1, 3] = np.nan
    with pytest.raises(ms.scores.StatisticError) as raised:
        scoring_of(store, plan(stack, "norms", norms), "wanda").matrices(Layout.parse("stack out in"), 1, 2)
    assert raised.value.index == (1, 3)
