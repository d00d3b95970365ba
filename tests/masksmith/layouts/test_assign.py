"""The default rule: which layout a tensor's name and shape give it, and which tensors stay dense."""

from dataclasses import replace

import pytest

from masksmith.layouts import Candidate, Layout, LayoutError, SelectionError, select, with_layouts
from masksmith.patterns import parse

PATTERN = parse("2:4")
LLAMA = {
    "model.embed_tokens.weight": (96, 32),
    "model.layers.0.self_attn.q_proj.weight": (32, 32),
    "model.layers.0.mlp.gate_proj.weight": (48, 32),
    "model.layers.0.mlp.gate_proj.bias": (48,),
    "model.layers.0.input_layernorm.weight": (32,),
    "model.norm.weight": (32,),
    "lm_head.weight": (96, 32),
}
DENSE = {
    "model.embed_tokens.weight": "an embedding",
    "embeddings.position_embeddings": "an embedding",
    "transformer.wte.weight": "an embedding",
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": "an embedding",
    "vit.embeddings.patch_embeddings.projection.weight": "an embedding",
    "lm_head.weight": "an output head",
    "embed_out.weight": "an embedding",
    "classifier.weight": "an output head",
    "cls.predictions.transform.dense.weight": "an output head",
    "model.layers.0.mlp.router.weight": "a router",
    "model.layers.0.mlp.shared_expert_gate.weight": "a router",
    "model.layers.0.mlp.experts.down_proj_bias": "a bias",
    "model.layers.0.self_attn.q_proj.lora_A.default.weight": "a low-rank adapter",
    "model.layers.0.attn.bias": "a bias",
    "model.layers.0.mixer.A_log": "a state parameter",
    "model.layers.0.q_norm.weight": "a norm",
    "pooler.dense.weight": "outside the model's blocks",
}
MASKED = [
    "model.layers.0.mlp.gate.weight",
    "bert.encoder.layer.0.output.dense.weight",
    "text_embedding_model.layers.0.q.weight",
    "model.layers.0.denorm_proj.weight",
    "model.layers.0.mlp.shared_experts.up_proj.weight",
    "h.3.mlp.c_proj.weight",
]


def assign(shapes, by_name=None, config=None):
    candidates = [Candidate(name, shape, "F32") for name, shape in shapes.items()]
    return {each.name: each for each in with_layouts(candidates, by_name, config)}


@pytest.mark.parametrize("name", DENSE)
def test_what_is_no_matrix_of_a_block_stays_dense(name):
    shapes = {name: (32, 32), "model.layers.0.self_attn.q_proj.weight": (32, 32)}
    candidates = list(assign(shapes).values())
    assert candidates[0].dense_by_default_reason.startswith(DENSE[name])
    assert select(candidates, PATTERN).chosen == ["model.layers.0.self_attn.q_proj.weight"]
    assert select(candidates, PATTERN, layers=name).chosen == [name]


@pytest.mark.parametrize(
    "name",
    [
        "q_proj.hada_w1_a",
        "q_proj.lokr_w1",
        "q_proj.lokr_w2_b",
        "q_proj.miss_block",
        "q_proj.oft_R.weight",
        "q_proj.boft_s",
        "q_proj.ia3_l",
        "q_proj.randlora_B",
        "q_proj.lora_down.weight",
        "attn1.processor.to_q_lora.down.weight",
        "attn1.to_q.lora.up.weight",
        "q_proj.lora_linear_layer.down.weight",
        "output.adapters.task.adapter_down.0.weight",
        "output.adapters.task.adapter_up.weight",
        "feed_forward.gate_up_proj_adapter_list.0.0.weight",
    ],
)
def test_adapters_of_all_libraries_stay_dense(name):
    shapes = {f"base_model.model.layers.0.{name}": (8, 32), "base_model.model.layers.0.q_proj.weight": (32, 32)}
    selection = select(list(assign(shapes).values()), PATTERN)
    assert selection.skipped == {f"base_model.model.layers.0.{name}": "a low-rank adapter"}


def test_a_norm_and_a_linear_layer_in_one_module():
    shapes = {
        "layers.0.self_attention.layernorm_qkv.weight": (96, 32),
        "layers.0.self_attention.layernorm_qkv.layer_norm_weight": (32,),
        "layers.0.self_attention.layernorm_q.weight": (32, 32),
    }
    candidates = assign(shapes)
    selection = select(list(candidates.values()), PATTERN)
    assert selection.chosen == ["layers.0.self_attention.layernorm_qkv.weight"]
    assert str(candidates[selection.chosen[0]].layout) == "out in"
    assert selection.skipped["layers.0.self_attention.layernorm_q.weight"] == "a norm"


@pytest.mark.parametrize("name", MASKED)
def test_matrices_of_blocks_are_masked_whatever_their_names_resemble(name):
    shapes = {name: (32, 32), "model.layers.0.self_attn.q_proj.weight": (32, 32)}
    assert select(list(assign(shapes).values()), PATTERN).chosen == list(shapes)


def test_a_gate_is_a_router_beside_experts():
    names = ["model.layers.0.mlp.gate.weight", "model.layers.0.mlp.experts.0.up_proj.weight"]
    assert assign(dict.fromkeys(names, (8, 8)))[names[0]].dense_by_default_reason.startswith("a router")


def test_without_blocks_every_matrix_is_masked():
    assert select(list(assign({"w": (8, 8), "0.weight": (8, 8)}).values()), PATTERN).chosen == ["w", "0.weight"]


def test_numbered_layers_with_parameters_of_their_own_are_no_blocks():
    """Batch norms and scales have names such as `1.running_mean`, as a fused weight of a block would have."""
    weights = {"0.weight": (8, 8, 3, 3), "2.weight": (8, 8)}
    others = {"1.running_mean": (8,), "1.num_batches_tracked": (), "2.scale": (), "2.layer_scale": (8,)}
    candidates = [Candidate(name, shape, "F32") for name, shape in (weights | others).items()]
    assert select(with_layouts(candidates), PATTERN).chosen == list(weights)
    in_block = [*candidates, Candidate("3.qkv.weight", (8, 8), "F32")]
    assert select(with_layouts(in_block), PATTERN).chosen == ["3.qkv.weight"]


def test_numbered_tensors_of_unknown_shapes_are_in_blocks():
    candidates = [Candidate("layers.0.fc.weight"), Candidate("fc.weight")]
    assert [each.dense_by_default_reason for each in with_layouts(candidates)] == [None, "outside the model's blocks"]


def test_a_glob_names_no_embedding_and_no_head():
    candidates = list(assign(LLAMA).values())
    selection = select(candidates, PATTERN, layers="*")
    assert selection.chosen == ["model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.gate_proj.weight"]
    assert selection.skipped["lm_head.weight"] == "an output head"
    assert select(candidates, PATTERN, layers=["*q_proj*", "lm_head.weight"]).chosen[-1] == "lm_head.weight"


def test_a_glob_is_enough_outside_the_blocks():
    candidates = list(assign(LLAMA | {"pooler.dense.weight": (32, 32)}).values())
    assert select(candidates, PATTERN, layers="pooler*").chosen == ["pooler.dense.weight"]


@pytest.mark.parametrize("name", ["layers.0.w_scale_inv", "layers.0.scales", "layers.0.qweight", "layers.0.w_blocks"])
def test_scales_and_packed_weights_are_never_masked(name):
    name = name.replace("w_scale", "weight_scale")
    candidates = list(assign({name: (8, 8), "layers.0.q.weight": (8, 8)}).values())
    assert select(candidates, PATTERN).chosen == ["layers.0.q.weight"]
    with pytest.raises(SelectionError, match="cannot be masked"):
        select(candidates, PATTERN, layers=name)


@pytest.mark.parametrize("layer", ["scale", "time_scale", "smooth", "W_q", "D", "alpha"])
def test_a_matrix_that_is_the_weight_of_a_layer_is_masked_whatever_the_layer_is_called(layer):
    shapes = {f"layers.0.{layer}.weight": (8, 8), f"layers.1.{layer}.weight": (8,), f"layers.2.{layer}": (8, 8)}
    assert select(list(assign(shapes).values()), PATTERN).chosen == [f"layers.0.{layer}.weight"]


GPT2 = {
    "h.0.attn.c_attn.weight": (32, 96),
    "h.0.attn.c_proj.weight": (32, 32),
    "h.0.mlp.c_fc.weight": (32, 128),
    "h.0.mlp.c_proj.weight": (128, 32),
}


def test_conv1d_is_recognised_by_names_and_shapes():
    assert {str(each.layout) for each in assign(GPT2).values()} == {"in out"}
    assert {each.layout.rule for each in assign(GPT2).values()} == {"name"}
    assert assign(GPT2)["h.0.attn.c_attn.weight"].layout.out_parts == (32, 32, 32)


@pytest.mark.parametrize("config", [None, {"model_type": "gpt2"}])
def test_cross_attention_of_gpt2_fuses_key_and_value(config):
    cross = {"h.0.crossattention.c_attn.weight": (48, 96), "h.0.crossattention.q_attn.weight": (48, 48)}
    layouts = {name: each.layout for name, each in assign(GPT2 | cross, config=config).items()}
    assert layouts["h.0.crossattention.c_attn.weight"].out_parts == (48, 48)
    assert layouts["h.0.crossattention.q_attn.weight"].out_parts == ()
    assert {str(layout) for layout in layouts.values()} == {"in out"}


@pytest.mark.parametrize(("rows", "parts"), [(48, (16, 16, 16)), (24, ()), (32, ())])
@pytest.mark.parametrize("layer", ["Wqkv.weight", "qkv.weight", "in_proj_weight"])
def test_attention_with_fewer_rows_than_three_times_the_inputs_has_no_known_parts(layer, rows, parts):
    name = f"layers.0.attn.{layer}"
    assert assign({name: (rows, 16)})[name].layout.out_parts == parts


def test_the_same_names_in_a_linear_model_are_not_conv1d():
    linear = {name: shape[::-1] for name, shape in GPT2.items()}
    assert {str(each.layout) for each in assign(linear).values()} == {"out in"}
    config = {"model_type": "gpt_bigcode"}
    assert {str(each.layout) for each in assign(linear, config=config).values()} == {"out in"}


def test_the_config_decides_before_names_and_shapes():
    assert {each.layout.rule for each in assign(GPT2, config={"model_type": "gpt2"}).values()} == {"architecture"}
    layouts = [each.layout for each in assign(GPT2, config={"model_type": "llama"}).values()]
    assert {str(layout) for layout in layouts} == {"out in"}


EXPERTS = "model.layers.0.mlp.experts."


@pytest.mark.parametrize(
    ("gate_up", "down", "axes"),
    [
        ((4, 96, 32), (4, 32, 48), "stack out in"),
        ((4, 32, 96), (4, 48, 32), "stack in out"),
        ((4, 32, 32), (4, 32, 16), "stack out in"),
        ((4, 32, 32), (4, 16, 32), "stack in out"),
    ],
)
@pytest.mark.parametrize("experts", [EXPERTS, "down_blocks.0.experts.", "gate_up.experts."])
@pytest.mark.parametrize("names", [("gate_up_proj", "down_proj"), ("input_linear.weight", "output_linear.weight")])
def test_fused_experts_are_read_along_the_axis_that_both_shapes_allow(gate_up, down, axes, experts, names):
    shapes = {experts + names[0]: gate_up, experts + names[1]: down}
    assert {str(each.layout) for each in assign(shapes).values()} == {axes}


def test_experts_that_may_be_either_way_are_refused_unless_the_caller_says_which():
    shapes = {EXPERTS + "w1": (4, 32, 48), "layers.0.q.weight": (8, 8)}
    assert "does not show which axis is the input" in assign(shapes)[EXPERTS + "w1"].unsupported_reason
    by_name = {EXPERTS + "w1": Layout.parse("stack in out")}
    assert str(assign(shapes, by_name)[EXPERTS + "w1"].layout) == "stack in out"
    assert str(assign(shapes, config={"model_type": "gpt_oss"})[EXPERTS + "w1"].layout) == "stack in out"


@pytest.mark.parametrize(
    ("model_type", "parts"), [("llama4", (36, 36)), ("qwen3_vl_moe", (36, 36)), ("gpt_oss", ()), ("unknown", ())]
)
@pytest.mark.parametrize("down", [(4, 36, 32), (4, 8, 8)])
def test_gate_and_up_in_halves_of_the_last_axis_are_two_parts(model_type, parts, down):
    shapes = {EXPERTS + "gate_up_proj": (4, 32, 72), EXPERTS + "down_proj": down}
    layout = assign(shapes, config={"model_type": model_type})[EXPERTS + "gate_up_proj"].layout
    if layout is not None:
        assert (str(layout), layout.out_parts) == ("stack in out", parts)
    else:
        assert (model_type, down) == ("unknown", (4, 8, 8))


def test_three_dimensions_of_unknown_meaning_are_refused():
    assert "may be a convolution or stacked matrices" in assign({"w": (4, 32, 48)})["w"].unsupported_reason
    assert str(assign({"conv1.weight": (4, 32, 47)})["conv1.weight"].layout) == "out in kernel"
    assert str(assign({"w": (4, 32, 3)})["w"].layout) == "out in kernel"


def test_fused_attention_is_cut_where_the_config_says():
    config = {"model_type": "phi3", "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32}
    name = "model.layers.0.self_attn.qkv_proj.weight"
    assert assign({name: (64, 32)}, config=config)[name].layout.out_parts == (32, 16, 16)
    assert assign({name: (64, 32)})[name].layout.out_parts == ()


def test_a_layout_of_the_caller_must_name_a_tensor_and_fit_it():
    with pytest.raises(LayoutError, match="'v', but no tensor has this name"):
        assign({"w": (4, 8)}, {"v": Layout.parse("in out")})
    match = r"tensor 'w': axes 'stack in out' are for 3 dimensions, but the shape \[4, 8\] has 2"
    with pytest.raises(LayoutError, match=match):
        assign({"w": (4, 8)}, {"w": Layout.parse("stack in out")})


def test_shapes_are_those_of_the_matrices():
    # 2:4 along `in`, where the tensor is stored as [in, out]: V:N:M wants 64 rows of `out`.
    candidates = list(assign({"w": (8, 128)}, {"w": Layout.parse("in out")}).values())
    assert candidates[0].matrix_shape == (128, 8)
    assert select(candidates, parse("64:2:8", ragged="error")).chosen == ["w"]


@pytest.mark.parametrize(
    ("gate_up", "down", "axes"),
    [((4, 32, 48), (4, 24, 32), "stack in out"), ((4, 48, 32), (4, 32, 24), "stack out in")],
)
def test_the_shapes_of_experts_come_before_the_table(gate_up, down, axes):
    experts = "model.language_model.layers.0.mlp.experts"
    shapes = {f"{experts}.gate_up_proj": gate_up, f"{experts}.down_proj": down}
    candidates = assign(shapes, config={"model_type": "qwen3_vl_moe"})
    assert {str(each.layout) for each in candidates.values()} == {axes}


@pytest.mark.parametrize(
    ("name", "axes", "shape", "parts", "config"),
    [
        ("layers.0.attn.qkv.weight", "out in", (96, 32), (32, 32, 32), None),
        ("layers.0.attn.c_attn.weight", "in out", (32, 96), (32, 32, 32), {"model_type": "gpt2"}),
        ("layers.0.mlp.experts.gate_up_proj", "stack out in", (4, 64, 32), (32, 32), None),
        ("layers.0.mlp.experts.gate_up_proj", "stack in out", (4, 32, 64), (32, 32), {"model_type": "llama4"}),
        ("layers.0.mlp.experts.gate_up_proj", "stack in out", (4, 32, 64), (), {"model_type": "gpt_oss"}),
        ("layers.0.attn.qkv.weight", "out in kernel", (96, 32, 1), (), None),
    ],
)
def test_a_layout_that_the_model_shows_gets_the_parts_that_the_name_shows(name, axes, shape, parts, config):
    layout = Layout.parse(axes, rule="model")
    (candidate,) = with_layouts([Candidate(name, shape, "F32", layout=layout)], None, config)
    assert candidate.layout == replace(layout, out_parts=parts)
    observed = replace(layout, out_parts=(shape[layout.axes.index("out")],))
    (candidate,) = with_layouts([Candidate(name, shape, "F32", layout=observed)], None, config)
    assert candidate.layout == observed


@pytest.mark.parametrize(("kernel", "is_clear"), [((2, 2), False), ((4, 4), False), ((3, 3), True), ((1, 1), True)])
def test_an_even_kernel_inside_an_upsampling_module_may_be_transposed(kernel, is_clear):
    name = "neck.feature_upsample.scaled_images.0.layers.1.weight"  # DepthPro
    candidate = assign({name: (16, 16, *kernel)})[name]
    assert (candidate.layout is not None) == is_clear
    if not is_clear:
        assert "the name may mean a convolution or a transposed one" in candidate.unsupported_reason
    assert str(assign({name: (16, 32, *kernel), name[:-6] + "bias": (32,)})[name].layout) == "in out kernel kernel"
