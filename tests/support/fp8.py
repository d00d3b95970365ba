"""Checkpoints of 8-bit floats with scales, made by hand, and their weights as torch dequantises them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

WEIGHT = "model.layers.0.mlp.up_proj.weight"
BLOCKS = {"quant_method": "fp8", "weight_block_size": [5, 6]}


def compressed(strategy: str, **more: Any) -> dict[str, Any]:
    """A quantization_config as compressed-tensors writes it."""
    weights = {"num_bits": 8, "type": "float", "strategy": strategy, "symmetric": True} | more
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": groups}


def write(folder: Path, tensors: dict[str, torch.Tensor], quantisation: dict[str, Any] | None) -> Path:
    """Write a model's directory."""
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    if quantisation is not None:
        (folder / "config.json").write_text(json.dumps({"model_type": "own", "quantization_config": quantisation}))
    return folder


def quantised(
    shape: tuple[int, ...], scale_shape: tuple[int, ...], dtype: torch.dtype = torch.float8_e4m3fn, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Make a weight of 8-bit floats, and scales that differ much."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator).mul(16).to(dtype)
    return weight, torch.randn(scale_shape, generator=generator).mul(2).exp()


def dequantised(weight: torch.Tensor, scale: torch.Tensor, block: tuple[int, int]) -> torch.Tensor:
    """Multiply entry by entry: each with the scale of the block that it lies in."""
    *stack, rows, cols = weight.shape
    down, across = -(-rows // block[0]), -(-cols // block[1])
    scale = scale.float().reshape(*stack, down, across)
    values = torch.empty(weight.shape)
    for row in range(rows):
        for col in range(cols):
            values[..., row, col] = weight[..., row, col].float() * scale[..., row // block[0], col // block[1]]
    return values
