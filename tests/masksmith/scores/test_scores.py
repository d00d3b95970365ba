import re
from fractions import Fraction

import numpy as np
import pytest
import torch

import masksmith as ms
from masksmith import scores
from masksmith.layouts import Layout

RNG = np.random.default_rng(7)
WEIGHT = RNG.standard_normal((6, 8), dtype=np.float32)
INPUTS = RNG.standard_normal((40, 8))
NORMS = np.linalg.norm(INPUTS, axis=0)
GRAM = INPUTS.T @ INPUTS
CONV = RNG.standard_normal((4, 3, 2, 2), dtype=np.float32)
PATCHES = np.abs(RNG.standard_normal((25, 12)))


def both(call, *arrays):
    """Score in numpy and in torch; assert that they agree in value, shape and float type."""
    ours = call(*arrays)
    theirs = call(*(torch.from_numpy(np.array(array)) for array in arrays))
    assert isinstance(ours, np.ndarray)
    assert isinstance(theirs, torch.Tensor)
    assert str(theirs.dtype) == f"torch.{ours.dtype}"
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=2e-5)
    return ours


@pytest.mark.parametrize("power", [1.0, 0.5, 2.0])
def test_magnitude_is_a_power_of_the_size(power):
    np.testing.assert_allclose(both(lambda w: ms.magnitude(w, power), WEIGHT), np.abs(WEIGHT) ** power, rtol=1e-6)


def test_magnitude_keeps_the_type_and_widens_integers():
    for kind in (np.float16, np.float32, np.float64):
        assert ms.magnitude(WEIGHT.astype(kind)).dtype == kind
    assert ms.magnitude(torch.ones(2, 2, dtype=torch.bfloat16, requires_grad=True)).dtype == torch.bfloat16
    for tensor in (np.array([[-128]], np.int8), torch.tensor([[-128]], dtype=torch.int8)):
        assert ms.magnitude(tensor).tolist() == [[128.0]]
    assert ms.magnitude([[-1, 2]]).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_powers_of_small_floats_are_computed_in_float32(dtype):
    weight = torch.tensor([[1e-4, 300.0]], dtype=dtype)
    expected = weight.float().numpy() ** 2
    scores_of_torch = ms.magnitude(weight, 2)
    assert scores_of_torch.dtype == torch.float32
    np.testing.assert_array_equal(scores_of_torch.numpy(), expected)
    if dtype == torch.float16:
        np.testing.assert_array_equal(ms.magnitude(weight.numpy(), 2), expected)


@pytest.mark.parametrize(
    "score",
    [lambda weight: ms.magnitude(weight, 10), lambda weight: ms.taylor(weight, weight * 1e-16)],
    ids=["magnitude", "taylor"],
)
def test_small_scores_beside_large_ones_keep_their_order_in_float64(score):
    weight = WEIGHT * 1e-5
    weight[0, 0] = 1.0
    size = np.abs(weight).reshape(-1, 4)
    expected = (size >= np.sort(size, axis=1)[:, 2:3]).reshape(weight.shape)
    np.testing.assert_array_equal(ms.solve(score(weight.astype(np.float64)), "2:4").mask, expected)


@pytest.mark.parametrize("power", [np.float64(0.5), np.float32(0.5), Fraction(1, 2)])
def test_the_type_of_a_power_changes_nothing(power):
    expected = both(lambda weight, norms: ms.ria(weight, norms, 0.5), WEIGHT, NORMS)
    scores = both(lambda weight, norms: ms.ria(weight, norms, power), WEIGHT, NORMS)
    np.testing.assert_array_equal(scores, expected)
    assert scores.dtype == expected.dtype


@pytest.mark.parametrize("power", [0, -1, float("nan"), float("inf"), 1e-320, 1e308, "a"])
def test_magnitude_refuses_powers_that_do_not_rank(power):
    with pytest.raises(ms.ScoresError, match=re.escape(f"power={power!r} is not a number from 0.1 to 10")):
        ms.magnitude(WEIGHT, power)


def test_scores_that_all_underflow_are_refused():
    tiny = WEIGHT.astype(np.float64) * 1e-300
    for score in (
        lambda weight: ms.magnitude(weight, 2),
        lambda weight: ms.sparsegpt(weight, gram=GRAM),
        lambda weight: ms.taylor(weight, np.ones_like(weight)),
        lambda weight: ms.taylor(weight, weight),
        lambda weight: ms.taylor(weight, weight, "in"),
        lambda weight: ms.taylor(weight, np.ones_like(weight), "out", joint=True),
        lambda weight: ms.wanda(weight, NORMS * 1e-20),
        lambda weight: ms.ria(weight, np.where(NORMS > 0, 1e-40, 0), 10.0),
    ):
        for weight in (tiny, torch.from_numpy(tiny)):
            with pytest.raises(ms.ScoresError, match="all scores underflow in float64"):
                score(weight)
        assert not score(tiny * 0).any()


@pytest.mark.parametrize(
    "score",
    [
        lambda weight: ms.magnitude(weight * 1e20, 2, name="fc"),
        lambda weight: ms.wanda(weight * 1e20, NORMS * 1e20, name="fc"),
        lambda weight: ms.ria(weight, NORMS * 1e6, 10.0, name="fc"),
        lambda weight: ms.sparsegpt(weight * 1e20, gram=GRAM, name="fc"),
        lambda weight: ms.taylor(weight * 1e20, weight * 1e20, name="fc"),
    ],
    ids=["magnitude", "wanda", "ria", "sparsegpt", "taylor"],
)
def test_a_score_that_overflows_is_refused_with_its_index(score):
    weight = WEIGHT.astype(np.float32)
    for one in (weight, torch.from_numpy(weight)):
        with pytest.raises(
            ms.ScoresError, match=r"'fc': the score overflows in float32 at \[\d, \d\]; scale the weight"
        ):
            score(one)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_taylor_accepts_changes_that_are_all_negative(convert):
    weight = convert(np.full((2, 4), 2.0, np.float32))
    assert (ms.taylor(weight, -weight) == 16).all()
    assert (ms.taylor(weight, -weight, (2, 2), joint=True) == 256).all()


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_taylor_refuses_negative_changes_and_sums_of_groups_that_overflow(convert):
    ones = convert(np.ones((2, 4), np.float32))
    with pytest.raises(ms.ScoresError, match=r"'fc': the score overflows in float32 at \[0, 0\]"):
        ms.taylor(ones * 1e20, ones * -1e20, name="fc")
    for size, joint in ((1e19, False), (1e38, True)):
        with pytest.raises(ms.ScoresError, match="'fc': the sum of a group overflows in float32"):
            ms.taylor(ones * size, ones, (1, 4), joint=joint, name="fc")


def test_a_statistic_that_does_not_fit_the_layout_is_refused_by_name():
    layout, experts = Layout.parse("stack out in"), np.stack([WEIGHT, -WEIGHT])
    stacked = scores.by_layout(layout, "wanda", experts, np.stack([NORMS, NORMS]), "norms")
    np.testing.assert_array_equal(stacked, np.stack([ms.wanda(WEIGHT, NORMS)] * 2))
    for method, statistic, kind in (
        ("wanda", NORMS, "norms"), ("sparsegpt", np.stack([GRAM] * 3), "gram"), ("taylor", WEIGHT, "gradient_rms"),
    ):  # fmt: skip
        with pytest.raises(scores.StatisticError, match=f"'fc': {kind} has shape .*, the weight's layout needs"):
            scores.by_layout(layout, method, experts, statistic, kind, name="fc")


@pytest.mark.parametrize(("factor", "message"), [(1e300, "values overflow"), (1e-300, "all values underflow")])
def test_a_statistic_that_does_not_fit_the_dtype_is_refused_by_name(factor, message):
    weight = WEIGHT.astype(np.float32)
    for call, label in (
        (lambda: ms.wanda(weight, NORMS * factor, name="fc"), "norms"),
        (lambda: ms.sipp(weight, INPUTS.astype(np.float64) * factor, name="fc"), "activations"),
        (lambda: ms.taylor(weight, WEIGHT.astype(np.float64) * factor, name="fc"), "gradient"),
    ):
        with pytest.raises(scores.StatisticError, match=f"'fc': {label}: {message} in float32"):
            call()


@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_shares_of_sums_that_would_over_or_underflow_are_the_same(reduce):
    weight, inputs = WEIGHT.astype(np.float32), INPUTS.astype(np.float32)
    expected = ms.sipp(weight, inputs, reduce=reduce)
    for factor in (1e30, 1e-30):
        scaled = ms.sipp(weight * np.float32(factor), inputs * np.float32(factor), reduce=reduce)
        np.testing.assert_allclose(scaled, expected, rtol=1e-5, atol=1e-7)


def test_ria_refuses_sums_of_magnitudes_that_overflow():
    weight = np.full((4, 8), 1e38, np.float32)
    with pytest.raises(ms.ScoresError, match="'fc': the sum of the magnitudes of a row is not finite"):
        ms.ria(weight, name="fc")


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_ria_of_weights_of_zero_is_zero_for_every_norm(convert):
    """The power of the second norm is infinite in float32; infinity times a share of 0 would be NaN."""
    weight, norms = np.array([[1, 0], [1, 0]], np.float32), np.array([1, 1e20], np.float32)
    np.testing.assert_array_equal(np.asarray(ms.ria(convert(weight), convert(norms), 2)), [[1.5, 0], [1.5, 0]])


@pytest.mark.parametrize("exponent", [-70, -62])
def test_scores_that_are_all_subnormal_are_refused(exponent):
    """Those of 2^-62 are not: the largest has all digits of float32."""
    weight = np.ldexp(WEIGHT.astype(np.float32), exponent)
    for one in (weight, torch.from_numpy(weight)):
        if exponent == -62:
            assert float(ms.magnitude(one, 2).max()) > np.finfo(np.float32).tiny
            continue
        with pytest.raises(ms.ScoresError, match="all scores underflow in float32; scale the weight up"):
            ms.magnitude(one, 2)


def test_wanda_is_the_norm_of_what_a_weight_adds_to_its_output():
    computed = both(ms.wanda, WEIGHT, NORMS)
    for i, j in np.ndindex(WEIGHT.shape):
        assert computed[i, j] == pytest.approx(np.linalg.norm(INPUTS[:, j] * WEIGHT[i, j]), rel=1e-5)


def test_wanda_of_convolutions_takes_a_norm_a_place_or_a_channel():
    places = RNG.random((3, 2, 2))
    expected = np.abs(CONV) * places[None].astype(np.float32)
    np.testing.assert_allclose(both(ms.wanda, CONV, places), expected, rtol=1e-6)
    np.testing.assert_allclose(both(ms.wanda, CONV, places.ravel()), expected, rtol=1e-6)
    channels = RNG.random(3)
    np.testing.assert_allclose(ms.wanda(CONV, channels)[:, 1], np.abs(CONV[:, 1]) * np.float32(channels[1]), rtol=1e-6)


def test_halves_are_scored_as_floats_so_that_nothing_overflows():
    big = torch.full((2, 4), 3e4, dtype=torch.float16)
    assert torch.isfinite(ms.wanda(big, torch.full((4,), 3e4))).all()


def test_ria_shares_out_rows_and_columns():
    size = np.abs(WEIGHT)
    for power in (0.5, 1.0, 0.0):
        expected = [
            [(size[i, j] / size[i].sum() + size[i, j] / size[:, j].sum()) * NORMS[j] ** power for j in range(8)]
            for i in range(6)
        ]
        np.testing.assert_allclose(both(lambda w, n, p=power: ms.ria(w, n, p), WEIGHT, NORMS), expected, rtol=1e-5)
    assert ms.ria(WEIGHT).sum() == pytest.approx(6 + 8, rel=1e-5)


def test_ria_of_zeros_is_zero_and_rows_can_come_one_by_one():
    holes = WEIGHT.copy()
    holes[2], holes[:, 5] = 0, 0
    whole = both(ms.ria, holes, NORMS)
    assert not whole[2].any()
    assert not whole[:, 5].any()
    sums = scores.column_sums(holes)
    parts = [ms.ria(holes[k : k + 2], NORMS, column_sums=sums) for k in (0, 2, 4)]
    np.testing.assert_array_equal(np.vstack(parts), whole)


def test_sparsegpt_is_the_error_left_after_refitting_the_others():
    computed = both(lambda w, g: ms.sparsegpt(w, gram=g, damping=0), WEIGHT, GRAM)
    for i, j in np.ndindex(WEIGHT.shape):
        others = np.delete(INPUTS, j, axis=1)
        _, [left], *_ = np.linalg.lstsq(others, INPUTS @ WEIGHT[i].astype(np.float64), rcond=None)
        assert computed[i, j] == pytest.approx(left, rel=1e-4)


def test_sparsegpt_in_sequence_refits_later_columns_alone():
    computed = ms.sparsegpt(WEIGHT, gram=GRAM, damping=0, form="sequential")
    for j in range(8):
        later = np.linalg.inv(GRAM[j:, j:])[0, 0]
        np.testing.assert_allclose(computed[:, j], WEIGHT[:, j] ** 2 / later, rtol=1e-5)


def test_sparsegpt_takes_the_inverse_diagonal_and_damps_like_the_paper():
    damped = GRAM + 0.01 * np.diag(GRAM).mean() * np.eye(8)
    diagonal = np.diag(np.linalg.inv(damped))
    expected = ms.sparsegpt(WEIGHT, gram=GRAM)
    np.testing.assert_allclose(
        both(lambda w, d: ms.sparsegpt(w, inverse_diagonal=d), WEIGHT, diagonal), expected, rtol=1e-5
    )
    conv_gram = PATCHES.T @ PATCHES
    flat = ms.sparsegpt(CONV.reshape(4, 12), gram=conv_gram)
    np.testing.assert_array_equal(ms.sparsegpt(CONV, gram=conv_gram).reshape(4, 12), flat)


def test_taylor_is_the_squared_change_of_the_loss():
    weight = torch.tensor(WEIGHT, dtype=torch.float64, requires_grad=True)
    direction = torch.tensor(RNG.standard_normal((6, 8)))
    (weight * direction).sum().backward()
    computed = ms.taylor(weight, weight.grad)
    for i, j in np.ndindex(WEIGHT.shape):
        without = weight.detach().clone()
        without[i, j] = 0
        change = ((weight.detach() - without) * direction).sum()
        assert float(computed[i, j]) == pytest.approx(float(change) ** 2, rel=1e-9)


@pytest.mark.parametrize("joint", [False, True])
def test_taylor_sums_over_groups(joint):
    gradient = RNG.standard_normal(WEIGHT.shape, dtype=np.float32)
    change = WEIGHT * gradient

    def total(part):
        return part.sum() ** 2 if joint else (part**2).sum()

    by_row = both(lambda w, g: ms.taylor(w, g, "out", joint=joint), WEIGHT, gradient)
    by_col = both(lambda w, g: ms.taylor(w, g, "in", joint=joint), WEIGHT, gradient)
    blocks = both(lambda w, g: ms.taylor(w, g, (4, 3), joint=joint), WEIGHT, gradient)
    for i, j in np.ndindex(WEIGHT.shape):
        assert by_row[i, j] == pytest.approx(total(change[i]), rel=1e-4)
        assert by_col[i, j] == pytest.approx(total(change[:, j]), rel=1e-4)
        top, left = i // 4 * 4, j // 3 * 3
        assert blocks[i, j] == pytest.approx(total(change[top : top + 4, left : left + 3]), rel=1e-4)


def test_taylor_of_convolutions_blocks_channels_last():
    gradient = np.ones_like(CONV)
    blocks = both(lambda w, g: ms.taylor(w, g, (1, 3)), CONV, gradient)
    np.testing.assert_allclose(blocks, np.broadcast_to((CONV**2).sum(1, keepdims=True), CONV.shape), rtol=1e-5)
    channels = ms.taylor(CONV, gradient, "in")
    np.testing.assert_allclose(channels[0, :, 0, 0], (CONV**2).sum((0, 2, 3)), rtol=1e-5)


BAD = {
    "norms of another layer": (
        lambda: ms.wanda(WEIGHT, NORMS[:5], name="fc"), r"'fc': norms has shape \[5\].*\[6, 8\]",
    ),
    "a negative norm": (lambda: ms.wanda(WEIGHT, -NORMS), r"norms holds -.* at \[0\]"),
    "a norm that is no number": (lambda: ms.ria(WEIGHT, NORMS * np.nan), r"norms holds nan at \[0\]"),
    "a vector": (lambda: ms.wanda(WEIGHT[0], NORMS), r"shape \[8\] is not that of a weight"),
    "a negative power": (lambda: ms.ria(WEIGHT, NORMS, -1), "power=-1"),
    "no gram": (lambda: ms.sparsegpt(WEIGHT), "exactly one of gram= and inverse_diagonal="),
    "a gram of another layer": (lambda: ms.sparsegpt(WEIGHT, gram=GRAM[:3, :3]), r"gram has shape \[3, 3\].*\[8, 8\]"),
    "a singular gram": (lambda: ms.sparsegpt(WEIGHT, gram=np.zeros((8, 8))), "not positive definite"),
    "a zero diagonal": (lambda: ms.sparsegpt(WEIGHT, inverse_diagonal=np.zeros(8)), "holds 0"),
    "an unknown form": (lambda: ms.sparsegpt(WEIGHT, gram=GRAM, form="block"), "form='block'"),
    "a diagonal in sequence": (
        lambda: ms.sparsegpt(WEIGHT, inverse_diagonal=NORMS, form="sequential"), "needs gram=",
    ),
    "an unknown form of a diagonal": (lambda: scores.inverse_diagonal(GRAM, form="block"), "form='block'"),
    "a gram that is not square": (lambda: scores.inverse_diagonal(GRAM[:3]), r"gram has shape \[3, 8\], expected"),
    "a gram that is a vector": (lambda: scores.inverse_diagonal(NORMS), r"gram has shape \[8\], expected"),
    "negative damping": (lambda: ms.sparsegpt(WEIGHT, gram=GRAM, damping=-1), "damping=-1"),
    "too much damping": (lambda: ms.sparsegpt(WEIGHT, gram=GRAM, damping=1e300), r"damping=1e\+300 is not a number"),
    "a gradient of another layer": (
        lambda: ms.taylor(WEIGHT, WEIGHT.T, name="fc"), r"'fc': gradient has shape \[8, 6\], the weight has \[6, 8\]",
    ),
    "no group": (lambda: ms.taylor(WEIGHT, WEIGHT, (0, 4)), r"group=\(0, 4\)"),
    "other activations": (lambda: ms.sipp(WEIGHT, INPUTS[:, :3]), r"shape \[40, 3\], expected \[samples, 8\]"),
    "no samples": (lambda: scores.pfp(WEIGHT, INPUTS[:0]), r"shape \[0, 8\]"),
    "an unknown reduction": (lambda: ms.sipp(WEIGHT, INPUTS, reduce="min"), "reduce='min'"),
    "no points": (lambda: scores.sampling_bound(WEIGHT, 0), "points=0"),
    "no error": (lambda: scores.sampling_bound(abs(WEIGHT), 5).samples(0), "error=0"),
    "an infinite error": (lambda: scores.sampling_bound(abs(WEIGHT), 5).samples(np.inf), "error=inf"),
    "an error that is too small": (lambda: scores.sampling_bound(abs(WEIGHT), 5).samples(1e-300), "2.63 draws"),
    "negative draws": (lambda: scores.sampling_bound(abs(WEIGHT), 5).error(-1), "samples=-1"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_does_not_fit_is_refused_by_name(what):
    call, message = BAD[what]
    with pytest.raises(ms.ScoresError, match=message):
        call()


@pytest.mark.parametrize("score", ["wanda", "ria", "sparsegpt", "taylor", "sipp"])
def test_every_score_can_be_solved(score):
    made = {
        "wanda": lambda: ms.wanda(WEIGHT, NORMS),
        "ria": lambda: ms.ria(WEIGHT, NORMS),
        "sparsegpt": lambda: ms.sparsegpt(WEIGHT, gram=GRAM),
        "taylor": lambda: ms.taylor(WEIGHT, WEIGHT),
        "sipp": lambda: ms.sipp(WEIGHT, INPUTS),
    }[score]()
    assert made.shape == WEIGHT.shape
    assert ms.solve(made, "transposable 2:4").gap == 0.0


SMALL = np.float32(1e-30)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_scores_of_a_stack_underflow_only_if_those_of_all_its_matrices_do(convert):
    layout, weight = Layout.parse("stack in out"), np.stack([WEIGHT.T * SMALL, WEIGHT.T]).astype(np.float32)
    found = scores.by_layout(layout, "magnitude", convert(weight), power=2, name="fc")
    np.testing.assert_array_equal(np.asarray(found), weight**2)
    gradient = np.stack([WEIGHT.T * 1e-60, WEIGHT.T])
    assert np.isfinite(
        np.asarray(scores.by_layout(layout, "taylor", convert(weight), convert(gradient), "gradient"))
    ).all()
    with pytest.raises(scores.ScoreUnderflowError, match="'fc': all scores underflow in float32; scale the weight up"):
        scores.by_layout(layout, "magnitude", convert(weight * SMALL), power=2, name="fc")
    assert (scores.by_layout(layout, "magnitude", convert(weight * 0), power=2) == 0).all()


@pytest.mark.parametrize(
    "axes", ["stack in out", "stack out in", "out stack in", "in out kernel", "stack stack out in"]
)
def test_the_index_of_a_score_that_overflows_is_that_in_the_tensor(axes):
    layout, shape = Layout.parse(axes), (2, 3, 4, 5)[: len(axes.split())]
    index = (1, 2, 1, 3)[: len(shape)]
    weight = np.ones(shape, np.float32)
    weight[index] = 1e30
    with pytest.raises(ms.ScoresError, match="overflows") as caught:
        scores.by_layout(layout, "magnitude", weight, power=2, name="fc")
    assert caught.value.index == index
    assert caught.value.hint == "scale the weight down"
    if layout.is_stack:
        norms = np.ones((*layout.stack_shape(shape), shape[layout.axes.index("in")]))
        norms[(*index[: norms.ndim - 1], 2)] = np.nan
        with pytest.raises(scores.StatisticError, match="norms holds nan") as caught:
            scores.by_layout(layout, "wanda", np.ones(shape, np.float32), norms, "norms")
        assert caught.value.index == (*index[: norms.ndim - 1], 2)


@pytest.mark.parametrize(("dtype", "size"), [(np.float32, 1e-30), (np.float32, 1e25), (np.float64, 1e-170)])
def test_squares_of_weights_may_leave_the_range_where_scores_of_sparsegpt_do_not(dtype, size):
    weight, divisor = WEIGHT.astype(dtype) * dtype(size), np.full(WEIGHT.shape[1], size)
    found = ms.sparsegpt(weight, inverse_diagonal=divisor)
    np.testing.assert_allclose(found, (weight.astype(np.longdouble) ** 2 / size).astype(dtype), rtol=1e-6)
