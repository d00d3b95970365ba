"""Tensors whose axes neither name nor shape shows stay dense until the caller says which they are."""

import pytest
import torch

from masksmith.layouts import Candidate, Layout, SelectionError, select, with_layouts
from masksmith.layouts.convolutions import GROUPED_TRANSPOSED
from masksmith.patterns import parse

PATTERN = parse("2:4")


def assign(shapes, by_name=None, **options):
    candidates = [Candidate(name, shape, "F32", **options) for name, shape in shapes.items()]
    return {each.name: each for each in with_layouts(candidates, by_name)}


def check_unclear(name, shape, message, axes, **options):
    candidate = assign({name: shape}, **options)[name]
    assert candidate.layout is None
    if "file_format" in options:
        assert repr(axes) in candidate.unsupported_reason
    assert message in candidate.unsupported_reason
    with pytest.raises(SelectionError, match="cannot be masked"):
        select([candidate], PATTERN, layers=name)
    chosen = assign({name: shape}, {name: Layout.parse(axes)}, **options)[name]
    assert (str(chosen.layout), chosen.unsupported_reason) == (axes, None)


@pytest.mark.parametrize("name", ["moe.weight", "moe.w_in.weight", "block_sparse_moe.w1.weight"])
def test_small_stacks_of_experts_are_no_convolutions(name):
    check_unclear(f"layers.0.{name}", (4, 12, 8), "may be a convolution or stacked matrices", "stack out in")


@pytest.mark.parametrize("name", ["ffn.experts.mlp.w1", "ffn.experts.mlp.v1", "ffn.experts.mlp.w2", "moe.experts.w3"])
@pytest.mark.parametrize("axes", [None, "out in"])
def test_experts_fused_along_one_axis_are_never_masked(name, axes):
    name = f"transformer.blocks.0.{name}"
    by_name = {name: Layout.parse(axes)} if axes else {}
    candidate = assign({name: (192, 32)}, by_name)[name]
    assert "several experts fused along one axis" in candidate.unsupported_reason
    with pytest.raises(SelectionError, match="fused along one axis"):
        select([candidate], PATTERN, layers=name)


def test_experts_of_one_matrix_each_are_masked():
    shapes = {f"model.layers.0.block_sparse_moe.experts.{number}.w1.weight": (48, 32) for number in range(2)}
    assert select(list(assign(shapes).values()), PATTERN).chosen == list(shapes)


@pytest.mark.parametrize(
    "name",
    [
        "decoder.up.1.upsample.conv.weight",
        "up_blocks.0.upsamplers.0.conv.weight",
        "trunk.0.upconv1.weight",
        "upconv1.weight",
        "conv_up1.weight",
        "up1.up.weight",
        "ups.0.weight_v",
        "decoder.block.0.conv_t1.weight",
        "resblocks.0.convt_pre.weight",
        "decoder.blocks.0.up_sample.weight",
        "decoder.blocks.0.upscale.weight",
        "decoder.blocks.0.unpool.weight",
    ],
)
def test_a_name_of_both_kinds_of_convolutions_shows_neither(name):
    check_unclear(name, (32, 32, 3, 3), "a convolution or a transposed one", "in out kernel kernel")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("main.0.weight", (16, 32, 4, 4)),
        ("layers.0.conv1.weight", (16, 32, 4)),
        ("neck.reassemble_stage.layers.0.resize.weight", (8, 8, 4, 4)),  # DPT
        ("layers.0.fpn1.0.weight", (8, 8, 2, 2)),  # BEiT
    ],
)
def test_an_even_kernel_may_be_transposed_whatever_the_name(name, shape):
    axes = " ".join(("in", "out", *["kernel"] * (len(shape) - 2)))
    check_unclear(name, shape, "the even kernel may mean a convolution or a transposed one", axes)
    if shape[0] == shape[1]:
        shapes = {name: shape, name.replace("weight", "bias"): shape[:1]}
        assert "the even kernel may" in assign(shapes)[name].unsupported_reason


@pytest.mark.parametrize(
    "name",
    [
        "encoder.layers.0.downsample.conv.weight",
        "block.0.0.attention.self.sr.weight",
        "block.0.attention.sequence_reduction.weight",
        "blocks.0.patch_embed.proj.weight",
        "wav2vec2.feature_extractor.conv_layers.5.conv.weight",
        "feature_extractor.conv_layers.5.0.weight",
        "visual.conv1.weight",
        "vision_encoder.patch_conv.weight",
    ],
)
def test_names_of_plain_convolutions_with_even_kernels(name):
    assert str(assign({name: (32, 32, 4, 4)})[name].layout) == "out in kernel kernel"


@pytest.mark.parametrize("kernel", [3, 4])
@pytest.mark.parametrize("layer", [torch.nn.Conv2d, torch.nn.ConvTranspose2d])
def test_a_batch_norm_that_follows_shows_the_outputs(layer, kernel):
    norm = torch.nn.BatchNorm2d(32)
    generator = torch.nn.Sequential(layer(16, 32, kernel, bias=False), norm, torch.nn.ReLU())
    shapes = {f"main.{name}": tuple(value.shape) for name, value in generator.state_dict().items()}
    layout = assign(shapes)["main.0.weight"].layout
    axes = "in out" if layer is torch.nn.ConvTranspose2d else "out in"
    assert (str(layout), layout.rule) == (f"{axes} kernel kernel", "shape")


@pytest.mark.parametrize(("conv", "norm"), [("conv", "bn"), ("conv1", "bn1")])
@pytest.mark.parametrize(
    ("shape", "length", "is_plain"),
    [
        ((32, 3, 6, 6), 32, True),
        ((32, 3, 6, 6), 3, False),  # A transposed one, or a batch norm that comes first.
        ((32, 32, 6, 6), 32, False),
    ],
)
def test_a_batch_norm_beside_a_convolution_shows_a_plain_one(conv, norm, shape, length, is_plain):
    name = f"model.0.{conv}.weight"
    candidate = assign({name: shape, f"model.0.{norm}.running_mean": (length,)})[name]
    assert (candidate.layout is not None) == is_plain
    assert is_plain or "the even kernel may" in candidate.unsupported_reason


@pytest.mark.parametrize(
    "name", ["model.layers.0.linear_attn.conv1d.weight", "model.layers.0.self_attn.q_conv1d.weight"]
)
def test_short_convolutions_over_a_sequence_are_masked_if_they_are_named(name):
    assert select(list(assign({name: (64, 1, 4)}).values()), PATTERN, layers=name).chosen == [name]


def test_a_tensor_that_is_named_is_refused_with_the_reason_that_a_layout_removes():
    name = "decoder.layers.0.conv.weight"
    candidates = list(assign({name: (64, 1, 4, 4), "decoder.layers.0.q.weight": (8, 8)}).values())
    assert select(candidates, PATTERN).skipped[name].startswith("a convolution with one input channel")
    with pytest.raises(SelectionError, match=r"one input channel, .*; the even kernel may .* say which with a layout"):
        select(candidates, PATTERN, layers=name)


def test_outside_the_blocks_the_reason_says_both():
    shapes = {"upconv1.weight": (32, 32, 3, 3), "layers.0.q.weight": (8, 8)}
    reason = assign(shapes)["upconv1.weight"].unsupported_reason
    assert reason.startswith("outside the model's blocks; the name may mean a convolution or a transposed one")


@pytest.mark.parametrize(
    ("name", "outputs", "axes"),
    [
        ("upsample.conv.weight", 32, "in out kernel"),
        ("deconv.weight", 32, "in out kernel"),
        ("conv1.weight", 32, "in out kernel"),
        ("conv1.weight", 64, "out in kernel"),
    ],
)
def test_the_bias_beside_a_convolution_shows_its_outputs(name, outputs, axes):
    name = f"decoder.0.{name}"
    shapes = {name: (64, 32, 4), name.replace("weight", "bias"): (outputs,)}
    layout = assign(shapes)[name].layout
    assert (str(layout), layout.rule) == (axes, "shape")


@pytest.mark.parametrize(
    ("name", "axes"),
    [
        ("decoder.0.deconv.weight", "in out kernel kernel"),
        ("decoder.0.conv_transpose1.weight", "in out kernel kernel"),
        ("decoder.0.conv_trans.weight", "in out kernel kernel"),
        ("decoder.0.conv_transform.weight", "out in kernel kernel"),
        ("decoder.up.1.block.0.conv1.weight", "out in kernel kernel"),
        ("up_blocks.0.resnets.0.conv1.weight", "out in kernel kernel"),
        ("encoder.down.0.downsample.conv.weight", "out in kernel kernel"),
    ],
)
def test_other_convolutions_are_read_as_named(name, axes):
    assert str(assign({name: (32, 32, 3, 3)})[name].layout) == axes


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.layers.0.experts.w1", (2, 4, 32, 48)),
        ("model.layers.0.experts.w1", (2, 4, 8, 8)),
        ("decoder.layers.0.wi", (2, 4, 64, 128)),
        ("decoder.layers.0.wi", (2, 4, 8, 8)),
        ("decoder.layers.0.wi.weight", (2, 4, 64, 128)),
    ],
)
def test_stacks_of_four_dimensions_are_no_convolutions(name, shape):
    check_unclear(name, shape, "may be a convolution or stacked matrices", "stack stack out in")


@pytest.mark.parametrize(
    "name",
    [
        "transformer.layer.0.rel_attn.q",
        "funnel.encoder.blocks.0.0.attention.r_kernel",
        "model.layers.0.temporal_block.rg_lru.input_gate_weight",
    ],
)
def test_a_parameter_that_is_not_the_weight_of_a_layer_is_no_convolution(name):
    check_unclear(name, (32, 4, 8), "may be a convolution or stacked matrices", "stack in out")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("layers.0.conv.glu.b1", (1, 32, 1)),
        ("layers.0.conv_block.lookup", (1, 64, 16)),
        ("layers.0.deconv_gate.query", (8, 16, 4)),
        ("stages.0.downsample.query", (32, 4, 1)),
    ],
)
def test_other_parameters_below_a_convolution_are_not_its_weight(name, shape):
    check_unclear(name, shape, "may be a convolution or stacked matrices", "out in kernel")


@pytest.mark.parametrize("name", ["conv.weight", "conv1.w", "blocks.0.conv1", "conv.weight_orig"])
def test_weights_of_convolutions_by_their_last_part(name):
    assert str(assign({f"encoder.{name}": (16, 32, 3)})[f"encoder.{name}"].layout) == "out in kernel"


def test_the_weight_of_a_layer_that_is_no_convolution_is_none():
    assert str(assign({"layers.0.mix.weight": (4, 8, 7)})["layers.0.mix.weight"].layout) == "out in kernel"
    reason = "the shape [4, 8, 8] may be stacked matrices, and does not show"
    check_unclear("layers.0.mix.weight", (4, 8, 8), reason, "stack in out", may_be_convolution=False)


@pytest.mark.parametrize(
    ("file_format", "shape", "axes"),
    [
        ("tf", (32, 48), "in out"),
        ("flax", (32, 48), "in out"),
        ("flax", (3, 3, 32, 48), "kernel kernel in out"),
        ("mlx", (48, 3, 3, 32), "out kernel kernel in"),
    ],
)
def test_formats_with_other_axes_than_torch_are_named(file_format, shape, axes):
    name = "encoder.layers.0.conv.weight"
    check_unclear(name, shape, f"the format {file_format!r}", axes, file_format=file_format)
    traced = Candidate(name, shape, "F32", layout=Layout.parse("out in"), file_format=file_format)
    assert with_layouts([traced])[0].layout is None


def test_embeddings_of_other_formats_keep_their_reason():
    names = ["encoder.layers.0.query.weight", "embeddings.word_embeddings.weight"]
    reasons = [each.unsupported_reason for each in assign(dict.fromkeys(names, (32, 48)), file_format="tf").values()]
    assert "'tf'" in reasons[0]
    assert "an embedding" in reasons[1]


@pytest.mark.parametrize(
    ("file_format", "name"), [("pt", "layers.0.q.weight"), ("", "q"), ("mlx", "layers.0.q.weight")]
)
def test_formats_with_the_axes_of_torch_change_nothing(file_format, name):
    assert str(assign({name: (32, 48)}, file_format=file_format)[name].layout) == "out in"


@pytest.mark.parametrize("name", ["bert/layer_._0/query/kernel:0", "layer.0.query.kernel", "layer.0/query/kernel"])
def test_kernels_of_flax_and_tensorflow_are_known_by_their_names(name):
    check_unclear(name, (32, 48), "Flax or TensorFlow", "in out")


@pytest.mark.parametrize(("name", "shape"), [("w1", (64, 16)), ("g2", (16, 64)), ("v1", (64, 16))])
def test_factors_of_rwkv_are_unclear(name, shape):
    check_unclear(f"blocks.0.att.{name}", shape, "a low-rank factor", "in out")


BARE = ["flow.flows.0.translate", "visual.layers.0.proj", "encoder.layers.0.mixer.x_proj_w"]


@pytest.mark.parametrize("name", BARE)
def test_a_parameter_of_no_layer_is_unclear_beside_weights_of_layers(name):
    shapes = {name: (16, 16), "encoder.layers.0.q.weight": (16, 16)}
    candidates = list(assign(shapes).values())
    assert select(candidates, PATTERN).skipped[name].startswith("not the weight of a layer")
    chosen = assign(shapes, {name: Layout.parse("in out")})[name]
    assert (str(chosen.layout), chosen.unsupported_reason) == ("in out", None)


@pytest.mark.parametrize("name", BARE)
def test_names_that_the_caller_gives_are_matrices(name):
    assert str(assign({name: (16, 16), "encoder.layers.0.q": (16, 16)})[name].layout) == "out in"


@pytest.mark.parametrize("name", ["in_proj_weight", "weight_ih_l0", "weight_v", "gate_up_proj"])
def test_weights_of_layers_are_known_by_the_end_of_their_names(name):
    name = f"encoder.layers.0.mixer.{name}"
    assert str(assign({name: (16, 16), "encoder.layers.0.q.weight": (16, 16)})[name].layout) == "out in"


@pytest.mark.parametrize("name", ["deconv", "conv_transpose", "ups.0", "decoder.0.upsample.conv"])
def test_a_bias_may_be_of_a_transposed_convolution_of_several_groups(name):
    layer = torch.nn.ConvTranspose2d(16, 16, 4, groups=4)
    shapes = {f"{name}.{part}": tuple(value.shape) for part, value in layer.named_parameters()}
    assert "a plain one, or a transposed one of several groups" in assign(shapes)[f"{name}.weight"].unsupported_reason


@pytest.mark.parametrize("name", ["deconv", "layer", "conv"])
def test_a_bias_shows_several_groups(name):
    layer = torch.nn.ConvTranspose2d(8, 4, 4, groups=2)
    shapes = {f"{name}.{part}": tuple(value.shape) for part, value in layer.named_parameters()}
    assert assign(shapes)[f"{name}.weight"].unsupported_reason == GROUPED_TRANSPOSED


@pytest.mark.parametrize("name", ["deconv", "conv_transpose", "ups.0", "conv"])
@pytest.mark.parametrize("channels", [(16, 8), (24, 16)])
def test_a_bias_shows_a_plain_convolution_whatever_the_name(name, channels):
    layer = torch.nn.Conv2d(channels[0], channels[1], 3)
    shapes = {f"{name}.{part}": tuple(value.shape) for part, value in layer.named_parameters()}
    layout = assign(shapes)[f"{name}.weight"].layout
    assert (str(layout), layout.rule) == ("out in kernel kernel", "shape")


def test_a_bias_of_a_plain_convolution_of_several_groups():
    layer = torch.nn.Conv2d(16, 16, 4, groups=4)
    shapes = {f"conv1.{part}": tuple(value.shape) for part, value in layer.named_parameters()}
    assert str(assign(shapes)["conv1.weight"].layout) == "out in kernel kernel"


def test_why_convolutions_and_embeddings_of_some_shapes_are_dense():
    shapes = {
        "encoder.layers.0.conv.weight": (32, 1, 10),
        "encoder.mask_emb": (1, 1, 32),
        "embeddings.patch_embedding.weight": (32, 3, 8, 8),
    }
    convolution, embedding, patches = (candidate.dense_by_default_reason for candidate in assign(shapes).values())
    assert convolution == "a convolution with one input channel, or one per group: its sums run over its kernel alone"
    assert embedding == "an embedding by its name, which is looked up, not multiplied"
    assert patches == "an embedding of patches, outside the model's blocks"


def test_that_nothing_can_be_masked_is_explained_with_each_reason():
    shapes = {f"blocks.{number}.norm.weight": (8,) for number in range(9)} | {"blocks.0.conv.weight": (4, 1, 3)}
    message = (
        r"none of 10 tensor\(s\) .*'blocks.0.norm.weight' and 8 other\(s\): .*'blocks.0.conv.weight': a convolution"
    )
    with pytest.raises(SelectionError, match=message):
        select(list(assign(shapes).values()), PATTERN)


DENSE = {
    "blocks.0.attn.rel_pos_h": "an embedding",
    "blocks.0.attn.rel_pos_w": "an embedding",
    "blocks.0.att.time_maa_w1": "a state parameter",
    "blocks.0.att.time_decay_w1": "a state parameter",
    "blocks.0.att.r_k": "a state parameter",
}


@pytest.mark.parametrize("name", DENSE)
def test_tables_and_states_stay_dense(name):
    shapes = {name: (32, 16), "blocks.0.attn.qkv.weight": (48, 16)}
    candidates = list(assign(shapes).values())
    assert (candidates[0].unsupported_reason or candidates[0].dense_by_default_reason).startswith(DENSE[name])
    assert select(candidates, PATTERN).chosen == ["blocks.0.attn.qkv.weight"]


@pytest.mark.parametrize("part", ["W_q", "zero", "scale"])
def test_the_parts_of_a_packed_weight_are_never_masked(part):
    module = "model.layers.0.mlp.up_proj"
    shapes = {f"{module}.{name}": (8, 8) for name in ("W_q", "zero", "scale")}
    candidates = list(assign(shapes | {"model.layers.0.zero": (8, 8)}).values())
    assert select(candidates, PATTERN).chosen == ["model.layers.0.zero"]
    with pytest.raises(SelectionError, match="cannot be masked"):
        select(candidates, PATTERN, layers=f"{module}.{part}")


@pytest.mark.parametrize("shape", [(0, 8), (8, 0), (4, 8, 0)])
def test_a_tensor_without_entries_is_not_masked(shape):
    candidates = list(assign({"layers.0.empty.weight": shape, "layers.0.q.weight": (8, 8)}).values())
    for pattern in (PATTERN, None):
        selection = select(candidates, pattern)
        assert selection.skipped == {"layers.0.empty.weight": "it has no entries"}
