import numpy as np
import pytest
import torch
from torch.nn.utils import prune

import masksmith as ms
from masksmith import adapters
from masksmith.patterns import NM

torch.manual_seed(0)


def linear(rows=16, cols=32, dtype=torch.float32):
    return torch.nn.Linear(cols, rows, dtype=dtype)


@pytest.mark.parametrize("pattern", ["2:4", "transposable 4:8"])
def test_the_pruning_method_leaves_what_torch_leaves(pattern):
    layer = linear()
    weight = layer.weight.detach().clone()
    adapters.MaskPruning.apply(layer, "weight", pattern)
    expected = ms.solve(ms.magnitude(weight), pattern).mask
    assert prune.is_pruned(layer)
    assert torch.equal(layer.weight_orig, weight)
    assert torch.equal(layer.weight_mask, expected.float())
    inputs = torch.randn(3, 32)
    assert torch.equal(layer(inputs), torch.nn.functional.linear(inputs, weight * expected, layer.bias))
    prune.remove(layer, "weight")
    assert torch.equal(layer.weight, weight * expected)


def test_the_pruning_method_takes_scores_and_keeps_earlier_drops():
    layer = linear()
    prune.random_unstructured(layer, "weight", amount=0.3)
    before = layer.weight_mask.clone()
    scores = torch.rand(16, 32)
    adapters.MaskPruning.apply(layer, "weight", NM(2, 4), importance_scores=scores)
    assert not (layer.weight_mask.bool() & ~before.bool()).any()
    best = (scores * before).reshape(-1, 4).topk(2).values.sum()
    assert float((scores * layer.weight_mask).sum()) == pytest.approx(float(best), rel=1e-6)
    assert isinstance(layer._forward_pre_hooks[next(iter(layer._forward_pre_hooks))], prune.PruningContainer)


@pytest.mark.parametrize("pattern", ["2:4", "transposable 2:4"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_entries_without_score_come_before_dropped_ones(pattern, value):
    layer, before = linear(8, 8), torch.ones(8, 8)
    before[:, ::4] = 0
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:, 2] = value
    adapters.custom_from_mask(layer, before)
    adapters.MaskPruning.apply(layer, "weight", pattern)
    assert not (layer.weight_mask.bool() & ~before.bool()).any()
    best = (
        ms.solve((before.double() + layer.weight_orig.detach().double()).numpy(), pattern).mask & before.bool().numpy()
    )
    assert layer.weight_mask.sum() == best.sum()
    assert value == 0 or bool(layer.weight_mask[:, 2].sum() >= 4)


def test_the_pruning_method_keeps_groups_of_convolutions_along_input_channels():
    layer = torch.nn.Conv2d(8, 4, 3, dtype=torch.float64)
    adapters.MaskPruning.apply(layer, "weight", "2:4")
    groups = layer.weight_mask.permute(0, 2, 3, 1).reshape(-1, 4)
    assert (groups.sum(1) == 2).all()
    assert layer.weight_mask.dtype == torch.float64


def test_masks_from_elsewhere_prune_a_module():
    layer = linear(dtype=torch.bfloat16)
    mask = np.random.default_rng(0).random((16, 32)) < 0.5
    adapters.custom_from_mask(layer, mask)
    assert torch.equal(layer.weight != 0, torch.from_numpy(mask) & (layer.weight_orig != 0))
    with pytest.raises(ms.ScoresError, match=r"'weight': mask has shape \[32, 16\], the parameter \[16, 32\]"):
        adapters.custom_from_mask(linear(), mask.T)


def test_masks_that_torch_cannot_share_are_copied():
    """Arrays that are read-only, of which torch warns, or that run backwards, which it refuses."""
    mask = np.random.default_rng(0).random((16, 32)) < 0.5
    read_only = mask.copy()
    read_only.flags.writeable = False
    for given in (read_only, mask[::-1], mask[:, ::-1]):
        layer = linear()
        adapters.custom_from_mask(layer, given)
        assert np.array_equal(layer.weight_mask.numpy() != 0, given)
        state = adapters.pruned_state({"weight": layer.weight_orig}, {"weight": given})
        assert np.array_equal(state["weight_mask"].numpy() != 0, given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(8, 16), (8, 16, 3, 3)])
def test_the_calculator_fits_into_the_mask_step_of_apex(dtype, shape):
    parameter = torch.nn.Parameter(torch.randn(shape).to(dtype))
    buffer = torch.ones_like(parameter).bool()
    calculate = adapters.MaskCalculator("transposable 2:4")
    with torch.no_grad():
        buffer.set_(calculate(parameter))
        parameter.mul_(buffer)
    assert buffer.is_contiguous()
    assert ms.verify(buffer, "transposable 2:4")
    assert buffer.sum() * 2 == buffer.numel()
    with pytest.raises(ms.PatternError):
        adapters.MaskCalculator("m4n2_1d")


def test_drops_are_what_wandas_loop_over_groups_drops():
    weight, norms = torch.randn(16, 32), torch.rand(32)
    metric = weight.abs() * norms
    for zeros, m in ((2, 4), (4, 8), (4, 16)):
        expected = torch.zeros_like(metric, dtype=torch.bool)
        for start in range(0, 32, m):
            smallest = torch.topk(metric[:, start : start + m], zeros, dim=1, largest=False).indices
            expected.scatter_(1, start + smallest, True)
        computed = adapters.drop_mask(metric, NM.from_zeros(zeros, m))
        assert torch.equal(computed, expected)
        kept = adapters.keep_mask(metric.numpy(), NM.from_zeros(zeros, m))
        assert np.array_equal(~kept, expected.numpy())


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_states_go_dense_and_back(kind):
    layer = linear(dtype=torch.float16)
    mask = np.random.default_rng(0).random((16, 32)) < 0.5
    state = dict(layer.state_dict()) if kind == "torch" else {n: t.numpy() for n, t in layer.state_dict().items()}
    dense = adapters.dense_state(state, {"weight": mask})
    assert str(dense["weight"].dtype).endswith("float16")
    assert np.array_equal(np.asarray(dense["weight"]), np.where(mask, np.asarray(state["weight"]), 0))
    assert dense["bias"] is state["bias"]
    pruned = adapters.pruned_state(state, {"weight": torch.from_numpy(mask)})
    assert set(pruned) == {"weight_orig", "weight_mask", "bias"}
    weights, masks = adapters.split_pruned_state(pruned)
    assert set(weights) == {"weight", "bias"}
    assert np.array_equal(np.asarray(masks["weight"]), mask)


def test_the_pruned_state_loads_into_a_model_that_torch_pruned():
    layer, other = linear(), linear()
    solution = ms.solve(ms.magnitude(layer.weight), "2:4")
    state = adapters.pruned_state(layer.state_dict(), {"weight": solution.mask})
    prune.identity(other, "weight")
    other.load_state_dict(state)
    inputs = torch.randn(2, 32)
    masked = layer.weight.detach() * solution.mask
    assert torch.equal(other(inputs), torch.nn.functional.linear(inputs, masked, layer.bias))


def test_not_a_number_becomes_zero_where_it_is_dropped():
    dense = adapters.dense_state({"w": torch.tensor([[np.nan, 1.0]])}, {"w": np.array([[False, True]])})
    assert dense["w"].tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize("block", [(4, 4), (16, 16), (8, 32)])
def test_bsr_multiplies_like_the_dense_weight(block):
    weight = torch.randn(32, 64)
    blocks = torch.rand(32 // block[0], 64 // block[1]) < 0.5
    blocks[0, 0] = True
    mask = blocks.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    sparse = adapters.to_bsr(weight, mask, block)
    assert sparse.layout == torch.sparse_bsr
    assert len(sparse.values()) == blocks.sum()
    assert torch.equal(sparse.to_dense(), weight * mask)
    inputs = torch.randn(64, 5)
    if block[0] == block[1]:
        torch.testing.assert_close(sparse @ inputs, (weight * mask) @ inputs)


def test_semi_structured_tensors_need_cuda_and_say_so():
    weight = torch.randn(32, 64).half()
    mask = ms.solve(ms.magnitude(weight), "2:4").mask
    with pytest.raises(adapters.DeviceError, match="need a CUDA device; the weight is on cpu"):
        adapters.to_semi_structured(weight, mask)
    with pytest.raises(ms.ScoresError, match="'mask': it keeps more than 2 entries of a group of 4"):
        adapters.to_semi_structured(weight, torch.ones_like(mask))


@pytest.mark.parametrize("kept", [1, 255])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_masks_of_numbers_keep_all_but_zeros(dtype, kept):
    layer = linear()
    weight = layer.weight.detach().clone()
    mask = ms.solve(ms.magnitude(weight), "block 4x4 50%").mask
    numbers = mask.to(dtype) * kept
    torch.testing.assert_close(adapters.custom_from_mask(layer, numbers).weight, weight * mask, rtol=0, atol=0)
    assert torch.equal(adapters.to_bsr(weight, numbers, (4, 4)).to_dense(), weight * mask)
    with pytest.raises(adapters.DeviceError):
        adapters.to_semi_structured(weight, ms.solve(ms.magnitude(weight), "2:4").mask.to(dtype) * kept)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.bool], ids=str)
def test_weights_of_8_bits_have_zeros_where_they_are_dropped(dtype):
    weight = linear().weight.detach().mul(10).to(dtype)
    mask = ms.solve(ms.magnitude(weight.float()), "2:4").mask
    expected = weight.float() * mask
    dense = adapters.dense_state({"w": weight}, {"w": mask})["w"]
    assert dense.dtype == weight.dtype
    assert torch.equal(dense.float(), expected)
    assert torch.equal(ms.solve(weight.float().abs(), "2:4", weight=weight).pruned.float(), expected)
    blocks = adapters.to_bsr(weight, mask, (16, 32)).values()
    assert torch.equal(blocks[0].float(), expected)
    with pytest.raises(adapters.DeviceError):
        adapters.to_semi_structured(weight, mask)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_semi_structured_tensors_multiply_like_the_dense_weight():
    weight = torch.randn(128, 256, device="cuda", dtype=torch.float16)
    mask = ms.solve(ms.magnitude(weight), "2:4").mask
    inputs = torch.randn(16, 256, device="cuda", dtype=torch.float16)
    sparse = adapters.to_semi_structured(weight, mask)
    computed = torch.nn.functional.linear(inputs, sparse)
    torch.testing.assert_close(computed, inputs @ (weight * mask).T, rtol=2e-2, atol=2e-1)


BAD = {
    "a mask without a tensor": (lambda w: adapters.dense_state({}, {"w": w > 0}), "'w': there is a mask, but no"),
    "a mask of another shape": (
        lambda w: adapters.pruned_state({"w": w}, {"w": w.T > 0}), r"'w': mask has shape \[32, 16\]",
    ),
    "an original without a mask": (lambda w: adapters.split_pruned_state({"w_orig": w}), "w_orig has no w_mask"),
    "an original beside its weight": (
        lambda w: adapters.split_pruned_state({"w": w, "w_orig": w, "w_mask": w}), "'w': it stands beside w_orig",
    ),
    "a name that the mask would get": (
        lambda w: adapters.pruned_state({"w": w, "w_mask": w}, {"w": w > 0}), "'w_mask': the state has a tensor of",
    ),
    "blocks that do not cover": (lambda w: adapters.to_bsr(w, w > 0, (5, 4)), "blocks of 5x4 do not cover"),
    "a vector": (lambda w: adapters.to_bsr(w[0], w[0] > 0, (1, 1)), "both must be matrices of one shape"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_does_not_fit_is_refused_by_name(what):
    call, message = BAD[what]
    with pytest.raises(ms.ScoresError, match=message):
        call(torch.randn(16, 32))


def test_names_are_loaded_when_first_used():
    assert dir(adapters) == sorted(adapters.__all__)
    with pytest.raises(AttributeError, match="no attribute 'to_csr'"):
        adapters.to_csr  # noqa: B018
