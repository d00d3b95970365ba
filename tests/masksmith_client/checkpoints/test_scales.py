"""Weights of 8-bit floats, which are read through their scales: values, masks, and what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.fp8 import BLOCKS, WEIGHT, compressed, dequantised, quantised, write

from masksmith_client import Masks
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.stored_values import float8_values, nonzero, scale_values
from masksmith_client.cli.app import run

SCALE_INV, SCALE = WEIGHT + "_scale_inv", WEIGHT + "_scale"
LARGE_BLOCKS = BLOCKS | {"weight_block_size": [128, 128]}
HUGE_BLOCKS = BLOCKS | {"weight_block_size": [10**30, 10**30]}

# config, shape of the weight, shape and name of the scale, rows and columns of a block
CASES: dict[str, tuple[dict[str, Any], tuple[int, ...], tuple[int, ...], str, tuple[int, int]]] = {
    "blocks, partial at both edges": (BLOCKS, (12, 40), (3, 7), SCALE_INV, (5, 6)),
    "a block larger than the weight": (LARGE_BLOCKS, (12, 40), (1, 1), SCALE_INV, (128, 128)),
    "a block larger than any weight": (HUGE_BLOCKS, (12, 40), (1, 1), SCALE_INV, (12, 40)),
    "blocks of experts": (BLOCKS, (3, 12, 40), (3, 3, 7), SCALE_INV, (5, 6)),
    "fp8 by tensor": ({"quant_method": "fp8"}, (12, 40), (1,), SCALE, (12, 40)),
    "tensor, a number": (compressed("tensor"), (12, 40), (), SCALE, (12, 40)),
    "tensor": (compressed("tensor"), (12, 40), (1,), SCALE, (12, 40)),
    "channel": (compressed("channel"), (12, 40), (12, 1), SCALE, (1, 40)),
    "channel, a vector": (compressed("channel"), (12, 40), (12,), SCALE, (1, 40)),
    "compressed blocks": (compressed("block", block_structure=[5, 6]), (12, 40), (3, 7), SCALE, (5, 6)),
}  # fmt: skip


def prune(folder: Path, output: Path, *options: str, code: int = 0) -> None:
    assert run(["prune", str(folder), "-p", "2:4", "-o", str(output), "--local", "--threads", "1", *options]) == code


def layout(shape: tuple[int, ...]) -> list[str]:
    return ["--layout", f"{WEIGHT}={'stack ' * (len(shape) == 3)}out in"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_a_weight_is_pruned_by_what_it_is_worth_and_stays_8_bit(
    tmp_path: Path, case: str, dtype: torch.dtype, capsys: pytest.CaptureFixture[str]
) -> None:
    config, shape, scale_shape, name, block = CASES[case]
    weight, scale = quantised(shape, scale_shape, dtype)
    norm = torch.ones(40, dtype=torch.bfloat16)
    write(tmp_path / "model", {WEIGHT: weight, name: scale, "model.layers.0.norm.weight": norm}, config)
    prune(tmp_path / "model", tmp_path / "out", *layout(shape))
    after = load_file(tmp_path / "out" / "model.safetensors")
    kept = torch.from_numpy(Masks.open(tmp_path / "out" / "masks.safetensors")[WEIGHT])
    scores = dequantised(weight, scale, block).abs()
    best = scores.unflatten(-1, (-1, 4)).topk(2, dim=-1).values.sum(-1)
    assert torch.equal((scores * kept).unflatten(-1, (-1, 4)).topk(2, dim=-1).values.sum(-1), best)
    assert (kept.unflatten(-1, (-1, 4)).sum(-1) == 2).all()
    expected = weight.view(torch.uint8) * kept
    assert after[WEIGHT].dtype == dtype
    assert torch.equal(after[WEIGHT].view(torch.uint8), expected)
    assert torch.equal(after[name], scale)
    assert after.keys() == {WEIGHT, name, "model.layers.0.norm.weight"}
    assert (tmp_path / "out" / "config.json").read_bytes() == (tmp_path / "model" / "config.json").read_bytes()
    record = json.loads((tmp_path / "out" / "masksmith.json").read_text())
    by_name = {tensor["name"]: tensor for tensor in record["tensors"]}
    assert by_name[WEIGHT]["scale"] == name
    assert by_name[WEIGHT]["dtype"] == Checkpoint.open(tmp_path / "model").tensors[WEIGHT].dtype
    assert by_name[WEIGHT]["objective"] == pytest.approx(float(best.double().sum()), rel=1e-6)
    assert not by_name[name]["masked"]
    assert run(["verify", str(tmp_path / "out")]) == 0
    assert run(["inspect", str(tmp_path / "model"), *layout(shape)]) == 0
    assert f"yes, through {name}" in capsys.readouterr().out


@pytest.mark.parametrize("case", CASES)
def test_values_are_those_of_torch_in_bands_of_any_height(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, shape, scale_shape, name, block = CASES[case]
    weight, scale = quantised(shape, scale_shape)
    checkpoint = Checkpoint.open(write(tmp_path / "model", {WEIGHT: weight, name: scale}, config))
    expected = dequantised(weight, scale, block)
    for entries in (1, 40 * 7, 10**6):
        monkeypatch.setattr("masksmith_client.checkpoints.scaled_tensor.BAND_ENTRIES", entries)
        tensor = checkpoint.weight(WEIGHT)
        assert (tensor.dtype, tensor.data_bytes) == ("F32", 4 * weight.numel())
        assert np.array_equal(np.frombuffer(tensor.read(), "<f4").reshape(shape), expected.numpy())


@pytest.mark.parametrize(
    ("config", "shape", "scale_shape"),
    [
        (compressed("tensor"), (0, 8), (1,)),
        (compressed("tensor"), (8, 0), ()),
        (compressed("channel"), (0, 8), (0, 1)),
        (compressed("channel"), (8, 0), (8, 1)),
        (BLOCKS, (0, 12), (0, 2)),
        (BLOCKS, (12, 0), (3, 0)),
        (BLOCKS, (0, 10, 12), (0, 2, 2)),
    ],
)
def test_an_empty_weight_has_no_values_under_any_strategy(
    tmp_path: Path, config: dict[str, Any], shape: tuple[int, ...], scale_shape: tuple[int, ...]
) -> None:
    weight, scale = quantised(shape, scale_shape)
    name = SCALE_INV if config is BLOCKS else SCALE
    checkpoint = Checkpoint.open(write(tmp_path / "model", {WEIGHT: weight, name: scale}, config))
    checkpoint.check_is_readable()
    assert checkpoint.weight(WEIGHT).read() == b""


@pytest.mark.parametrize(("name", "dtype"), [("F8_E4M3", torch.float8_e4m3fn), ("F8_E5M2", torch.float8_e5m2)])
def test_every_byte_has_the_value_that_torch_gives_it(name: str, dtype: torch.dtype) -> None:
    expected = torch.arange(256, dtype=torch.uint8).view(dtype).float().numpy()
    assert np.array_equal(float8_values(name), expected, equal_nan=True)


def test_scales_of_every_dtype() -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    expected = codes.view(torch.float8_e8m0fnu).float().numpy()
    assert np.array_equal(scale_values(codes.numpy().tobytes(), "F8_E8M0"), expected, equal_nan=True)
    for name, dtype in {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
    }.items():
        values = torch.randn(9).to(dtype)
        read = scale_values(values.view(torch.uint8).numpy().tobytes(), name)
        assert np.array_equal(read, values.float().numpy())


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("F32", torch.float32), ("F64", torch.float64), ("F16", torch.float16), ("BF16", torch.bfloat16),
        ("I8", torch.int8), ("U8", torch.uint8), ("I32", torch.int32), ("F8_E4M3", torch.float8_e4m3fn),
        ("F8_E5M2", torch.float8_e5m2), ("F8_E4M3FNUZ", torch.float8_e4m3fnuz), ("F8_E5M2FNUZ", torch.float8_e5m2fnuz),
    ],
)  # fmt: skip
def test_zero_is_what_equals_zero_in_every_dtype(name: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    size = torch.empty(0, dtype=dtype).element_size()
    codes = torch.arange(256, dtype=torch.uint8)
    data = torch.randint(0, 256, (4096 * size,), generator=generator, dtype=torch.uint8) if size > 1 else codes
    top = torch.zeros(4 * size, dtype=torch.uint8)
    top[size - 1], top[2 * size] = 128, 1  # minus zero, the smallest number, zero, zero
    data = torch.cat([data, top])
    assert np.array_equal(nonzero(data.numpy().tobytes(), name), (data.view(dtype).double() != 0).numpy())


def broken(**changes: Any) -> dict[str, torch.Tensor]:
    weight, scale = quantised((12, 40), (3, 7))
    return {
        name: tensor for name, tensor in ({WEIGHT: weight, SCALE_INV: scale} | changes).items() if tensor is not None
    }


NAN = quantised((12, 40), (3, 7))[1].index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(torch.nan))
INT8 = {"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {}}


@pytest.mark.parametrize(
    ("changes", "config", "message"),
    [
        ({SCALE_INV: None}, BLOCKS, rf"'{WEIGHT}' is F8_E4M3 and has no scale.*'{SCALE_INV}'"),
        ({SCALE_INV: torch.ones(3, 6)}, BLOCKS, rf"'{SCALE_INV}' has the shape \[3, 6\].*\[3, 7\].*blocks of 5x6"),
        ({SCALE_INV: torch.ones(7, 3)}, BLOCKS, r"\[7, 3\].*\[3, 7\]"),
        ({SCALE_INV: NAN}, BLOCKS, rf"'{SCALE_INV}' is nan at \[1, 2\]"),
        ({SCALE_INV: torch.ones(3, 7, dtype=torch.int32)}, BLOCKS, rf"'{SCALE_INV}' is I32"),
        ({WEIGHT: torch.ones(12, 40)}, BLOCKS, rf"'{WEIGHT}' is F32, and there is a scale"),
        ({WEIGHT: torch.ones(12, 40), SCALE_INV: None}, BLOCKS, "no tensor is of 8-bit floats.*quantization_config"),
        ({WEIGHT: torch.ones(12, 40).to(torch.float8_e4m3fnuz)}, BLOCKS, "F8_E4M3FNUZ.*only"),
        ({WEIGHT + "_zero_point": torch.ones(3, 7, dtype=torch.int8)}, BLOCKS, "has a zero point.*made from"),
        ({}, BLOCKS | {"weight_block_size": [0, 6]}, r"weight_block_size=\[0, 6\]"),
        ({}, BLOCKS | {"weight_block_size": 128}, "weight_block_size=128"),
        ({}, {"quant_method": "fp8"}, r"\[3, 7\].*one for the tensor.*one for each row"),
        ({}, None, "shows that it is quantised.*config.json"),
        ({}, compressed("group"), "by 'group'"),
        ({}, compressed("tensor", num_bits=4), "float of 4 bits"),
        ({}, compressed("tensor") | {"config_groups": {}}, "no config_groups"),
        ({}, compressed("tensor") | {"sparsity_config": {"format": "sparse-24-bitmask"}}, "format 'sparse-24-bitmask'"),
        ({}, compressed("tensor") | {"format": "nvfp4-pack-quantized"}, "nvfp4.*run_compressed"),
        ({WEIGHT: torch.ones(12, 40, dtype=torch.int8)}, INT8, "format 'int-quantized'.*run_compressed"),
        ({WEIGHT: torch.ones(12, 40, dtype=torch.int8)}, None, r"\(fp8\)"),
        ({WEIGHT: torch.ones(12, 40, dtype=torch.int8), SCALE_INV: None, SCALE: torch.ones(12, 1)}, None, r"\(int8\)"),
        ({}, {"quant_method": "gptq"}, "'gptq'.*made from"),
        ({}, {"quant_method": "modelopt"}, "'modelopt'.*made from"),
    ],
)
def test_what_cannot_be_read_through_scales_is_refused_by_name(
    tmp_path: Path,
    changes: dict[str, Any],
    config: dict[str, Any] | None,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = write(tmp_path / "model", broken(**changes), config)
    prune(folder, tmp_path / "out", "--layers", "*", code=2)
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert not (tmp_path / "out").exists()


def test_zero_points_that_are_zero_do_not_matter(tmp_path: Path) -> None:
    points = {WEIGHT + "_zero_point": torch.zeros(3, 7).to(torch.float8_e4m3fn)}
    prune(write(tmp_path / "model", broken(**points), BLOCKS), tmp_path / "out")
    assert list(Masks.open(tmp_path / "out" / "masks.safetensors")) == [WEIGHT]


@pytest.mark.parametrize("selected", [SCALE_INV, "own_scale"])
def test_no_scale_is_masked_even_by_its_name(tmp_path: Path, selected: str, capsys: pytest.CaptureFixture[str]) -> None:
    prune(
        write(tmp_path / "model", broken(own_scale=torch.ones(8, 8)), BLOCKS),
        tmp_path / "out",
        "--layers",
        selected,
        code=2,
    )
    assert "scale" in capsys.readouterr().err


def test_equal_bytes_under_different_scales_are_no_ties(tmp_path: Path) -> None:
    weight, scale = quantised((12, 40), (3, 7))
    other = WEIGHT.replace(".0.", ".1.")
    scales = {SCALE_INV: scale, other + "_scale_inv": scale.flip(1)}
    prune(write(tmp_path / "model", {WEIGHT: weight, other: weight.clone()} | scales, BLOCKS), tmp_path / "out")
    masks = Masks.open(tmp_path / "out" / "masks.safetensors")
    for name in (WEIGHT, other):
        scores = dequantised(weight, scales[name + "_scale_inv"], (5, 6)).abs()
        best = scores.unflatten(-1, (-1, 4)).topk(2, dim=-1).values.double().sum()
        assert float((scores.double() * torch.from_numpy(masks[name])).sum()) == pytest.approx(float(best), rel=1e-9)
    assert not np.array_equal(masks[WEIGHT], masks[other])


def test_a_bad_weight_and_an_overflow_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weight, scale = quantised((12, 40), (3, 7))
    weight.view(torch.uint8)[3, 5] = 127
    prune(write(tmp_path / "nan", {WEIGHT: weight, SCALE_INV: scale}, BLOCKS), tmp_path / "out", code=2)
    assert re.search(rf"'{WEIGHT}'.*NaN at \[3, 5\]", capsys.readouterr().err)
    weight.view(torch.uint8)[3, 5] = 126
    scale[0, 0] = 3e38
    prune(write(tmp_path / "inf", {WEIGHT: weight, SCALE_INV: scale}, BLOCKS), tmp_path / "out2", code=2)
    assert re.search(rf"'{WEIGHT}'.*infinity", capsys.readouterr().err)


def test_transformers_loads_a_pruned_fp8_model_and_gives_its_dequantised_weights(tmp_path: Path) -> None:
    import transformers

    small = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    config = transformers.LlamaConfig(**small, num_attention_heads=2, num_key_value_heads=2)
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "model")
    before = load_file(tmp_path / "model" / "model.safetensors")
    block = {
        "quant_method": "fp8",
        "weight_block_size": [16, 16],
        "activation_scheme": "dynamic",
        "modules_to_not_convert": ["lm_head"],
    }
    tensors, expected = {}, {}
    for number, (name, tensor) in enumerate(before.items()):
        tensors[name] = tensor
        if name.endswith("_proj.weight"):
            rows, cols = tensor.shape
            weight, scale = quantised((rows, cols), (-(-rows // 16), -(-cols // 16)), seed=number)
            tensors[name], tensors[name + "_scale_inv"] = weight, scale
            expected[name] = dequantised(weight, scale, (16, 16))
    save_file(tensors, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    text = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(text | {"quantization_config": block}))
    prune(tmp_path / "model", tmp_path / "out", "--exclude", "lm_head.weight")
    masks = Masks.open(tmp_path / "out" / "masks.safetensors")
    assert set(masks) == set(expected)
    loaded = transformers.LlamaForCausalLM.from_pretrained(
        tmp_path / "out", quantization_config=transformers.FineGrainedFP8Config(dequantize=True), dtype=torch.float32
    ).state_dict()
    for name, values in expected.items():
        assert torch.allclose(loaded[name], values * torch.from_numpy(masks[name]), rtol=1e-2), name
