"""Models of convolutions: what their classes show where no forward pass can be run."""

from pathlib import Path

import pytest
from support.tiny_models import TinyModel, shapes_in

from masksmith_client.checkpoints.traced import trace

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
MAMBA2 = TinyModel(
    "mamba2",
    "Mamba2ForCausalLM",
    {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 1, "state_size": 8, "num_heads": 8, "head_dim": 8,
     "n_groups": 2, "chunk_size": 8},
    "",
)  # fmt: skip


@pytest.mark.parametrize(("model", "axes"), CONVOLUTIONS, ids=lambda value: getattr(value, "name", ""))
def test_the_class_of_a_convolution_shows_whether_it_is_transposed(tmp_path: Path, model: TinyModel, axes) -> None:
    model.save(tmp_path / "model")
    layouts = trace(tmp_path / "model", shapes_in(tmp_path / "model")).layouts
    assert {name: str(layouts[name]) for name in axes} == axes
    assert {layout.rule for layout in layouts.values()} == {"model"}


def test_a_config_is_read_as_transformers_reads_it(tmp_path: Path) -> None:
    MAMBA2.save(tmp_path / "model")
    assert "__float__" in (tmp_path / "model/config.json").read_text()
    traced = trace(tmp_path / "model", shapes_in(tmp_path / "model"))
    assert not traced.notes
    assert str(traced.layouts["backbone.layers.0.mixer.in_proj.weight"]) == "out in"
