"""Models of convolutions and fused experts: what their classes show where no forward pass can be run."""

from pathlib import Path

import pytest
import transformers
from support.tiny_models import TinyModel, shapes_in

from masksmith_client.checkpoints import config as config_module
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.choice import ChoiceOptions, choose
from masksmith_client.checkpoints.traced import has_matrices_of_config_model, trace

DAC = {"encoder_hidden_size": 8, "downsampling_ratios": [2, 4], "decoder_hidden_size": 32, "upsampling_ratios": [4, 2]}
CONVOLUTIONS = [
    (
        TinyModel("dac", "DacModel", {**DAC, "n_codebooks": 2, "codebook_size": 16, "codebook_dim": 4}, ""),
        {"decoder.block.0.conv_t1.weight": "in out kernel", "decoder.block.0.res_unit1.conv1.weight": "out in kernel"},
    ),
    (
        TinyModel(
            "univnet",
            "UnivNetModel",
            {"model_hidden_channels": 8, "num_mel_bins": 16, "kernel_predictor_hidden_channels": 8},
            "",
        ),
        {"resblocks.0.convt_pre.weight": "in out kernel", "conv_pre.weight": "out in kernel"},
    ),
    (
        TinyModel(
            "encodec",
            "EncodecModel",
            {"num_filters": 2, "hidden_size": 16, "codebook_dim": 16, "codebook_size": 16, "upsampling_ratios": [4, 2]},
            "",
        ),
        {
            "decoder.layers.3.conv.parametrizations.weight.original1": "in out kernel",
            "decoder.layers.0.conv.parametrizations.weight.original1": "out in kernel",
        },
    ),
]
DBRX = TinyModel(
    "dbrx",
    "DbrxForCausalLM",
    {
        "vocab_size": 96,
        "d_model": 32,
        "n_layers": 2,
        "n_heads": 4,
        "max_seq_len": 64,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 1e4},
        "ffn_config": {"ffn_hidden_size": 20, "moe_num_experts": 3, "moe_top_k": 2, "hidden_size": 32},
    },
    "",
)
MAMBA2 = TinyModel(
    "mamba2",
    "Mamba2ForCausalLM",
    {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 1, "state_size": 8, "num_heads": 8, "head_dim": 8,
     "n_groups": 2, "chunk_size": 8},
    "",
)  # fmt: skip
MLLAMA = TinyModel(
    "mllama",
    "MllamaForCausalLM",
    {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
     "num_key_value_heads": 2, "cross_attention_layers": [1], "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    "",
)  # fmt: skip
EFFICIENTNET = TinyModel(
    "efficientnet",
    "EfficientNetModel",
    {"image_size": 32, "width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 32},
    "",
)


@pytest.mark.parametrize(("model", "axes"), CONVOLUTIONS, ids=lambda value: getattr(value, "name", ""))
def test_the_class_of_a_convolution_shows_whether_it_is_transposed(tmp_path: Path, model: TinyModel, axes) -> None:
    model.save(tmp_path / "model")
    layouts = trace(tmp_path / "model", shapes_in(tmp_path / "model")).layouts
    assert {name: str(layouts[name]) for name in axes} == axes
    assert {layout.rule for layout in layouts.values()} == {"model"}


@pytest.mark.parametrize("has_config", [True, False])
def test_fused_experts_stay_dense(tmp_path: Path, has_config: bool) -> None:
    DBRX.save(tmp_path / "model")
    if not has_config:
        (tmp_path / "model/config.json").unlink()
    choice = choose(Checkpoint.open(tmp_path / "model"), ChoiceOptions())
    reasons = {name: str(each.reason) for name, each in choice.tensors.items() if ".experts." in name}
    assert len(reasons) == 6
    assert all("several experts fused" in reason for reason in reasons.values())
    assert {each.name.rpartition(".attn.")[2] for each in choice.masked_tensors} == {"Wqkv.weight", "out_proj.weight"}


def test_a_config_is_read_as_transformers_reads_it(tmp_path: Path) -> None:
    MAMBA2.save(tmp_path / "model")
    assert "__float__" in (tmp_path / "model/config.json").read_text()
    traced = trace(tmp_path / "model", shapes_in(tmp_path / "model"))
    assert not traced.notes
    assert str(traced.layouts["backbone.layers.0.mixer.in_proj.weight"]) == "out in"


@pytest.mark.parametrize("model", [MLLAMA, EFFICIENTNET], ids=lambda model: model.name)
@pytest.mark.parametrize("is_known", ["by its class", "by its config"])
def test_a_config_that_its_class_agrees_with_is_no_contradiction(
    tmp_path: Path, model: TinyModel, is_known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save(tmp_path / "model")
    if is_known == "by its class":
        monkeypatch.setattr(config_module, "_EXTRA_ROWS", {})
        monkeypatch.setattr(config_module, "_COUNTED_OTHERWISE", frozenset())
    else:
        monkeypatch.setattr("masksmith_client.checkpoints.traced._missing_libraries", lambda: ["transformers"])
    checkpoint = Checkpoint.open(tmp_path / "model")
    assert checkpoint.config is not None
    shapes = shapes_in(tmp_path / "model")
    assert has_matrices_of_config_model(tmp_path / "model", shapes) == (is_known == "by its class")


def test_a_class_has_all_its_matrices_and_no_others(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    shapes = shapes_in(tmp_path)
    up, other = "model.layers.1.mlp.up_proj.weight", "model.layers.2.mlp.up_proj.weight"
    assert has_matrices_of_config_model(tmp_path, shapes)
    assert not has_matrices_of_config_model(tmp_path, {name: shape for name, shape in shapes.items() if name != up})
    assert not has_matrices_of_config_model(tmp_path, shapes | {up: (40, 32)})
    assert not has_matrices_of_config_model(tmp_path, shapes | {other: (48, 32)})
