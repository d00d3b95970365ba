"""Quantised checkpoints are recognised by the names of their tensors, and by their configs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.quantised import quantisation_message


@pytest.mark.parametrize(
    ("method", "names", "advice"),
    [
        ("gptq", {"qweight": np.int32}, "made from"),
        ("awq", {"qweight": np.int32}, "made from"),
        ("bitsandbytes", {"weight.absmax": np.float32}, "dequantize"),
        ("compressed-tensors", {"weight_packed": np.int32}, "run_compressed"),
        ("mxfp4", {"weight_blocks": np.uint8}, "Mxfp4Config"),
        ("hqq", {"W_q": np.uint8, "zero": np.float32, "scale": np.float32}, "made from"),
        ("quanto", {"weight._data": np.int8, "weight._scale": np.float32}, "made from"),
        ("torchao", {"_weight_qdata": np.int8, "_weight_scale": np.float32}, "made from"),
        ("mlx", {"weight": np.uint32, "scales": np.float32, "biases": np.float32}, "made from"),
        ("aqlm", {"codes": np.int8, "codebooks": np.float32, "scales": np.float32}, "made from"),
        ("vptq", {"indices": np.int32, "centroids.weight": np.float32, "weight_scale": np.float32}, "made from"),
    ],
)
def test_quantised_checkpoints_are_recognized(tmp_path: Path, method: str, names: dict[str, Any], advice: str) -> None:
    module = "model.layers.0.mlp.up_proj"
    tensors = {f"{module}.{name}": np.ones((8, 8), dtype) for name, dtype in names.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    by_tensors = Checkpoint.open(tmp_path).quantisation
    assert by_tensors is not None
    assert method in by_tensors
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": method}}))
    by_config = Checkpoint.open(tmp_path).quantisation
    assert by_config is not None
    assert f"'{method}'" in by_config
    assert advice in by_config


def test_settings_of_a_quantisation_inside_a_part_of_the_config_are_named(tmp_path: Path) -> None:
    weight = "model.layers.0.mlp.up_proj.weight"
    save_file(
        {weight: np.ones((8, 8), np.int8), f"{weight}_scale": np.ones((8, 1), np.float32)}, tmp_path / "a.safetensors"
    )
    config = {"model_type": "x", "text_config": {"quantization_config": {"quant_method": "fp8"}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    message = Checkpoint.open(tmp_path).quantisation
    assert message is not None
    assert "'fp8' inside 'text_config'" in message
    assert "add the config.json" not in message


def test_a_table_named_centroids_alone_is_no_quantisation(tmp_path: Path) -> None:
    save_file({"memory.centroids.weight": np.ones((16, 16), np.float32)}, tmp_path / "model.safetensors")
    assert Checkpoint.open(tmp_path).quantisation is None


@pytest.mark.parametrize(
    ("dtype", "method"), [("F8_E4M3", "fp8"), ("F6_E2M3", "fp6"), ("F4", "fp4"), ("I8", "int8"), ("U8", "int8")]
)
def test_the_method_of_weights_with_a_scale_is_named_by_their_dtype(dtype: str, method: str) -> None:
    message = quantisation_message(None, {"up.weight": dtype, "up.weight_scale": "F32"})
    assert message is not None
    assert f"({method})" in message
    assert ("add the config.json" in message) == (method == "fp8")
