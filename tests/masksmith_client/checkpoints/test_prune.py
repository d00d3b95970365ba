"""`masksmith prune`: models of transformers in, directories out that `from_pretrained` loads."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from masksmith_client import Masks
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.cli.app import run

from .conftest import MODELS

Saved = Callable[[str], Path]

# Which tensors are masked, and the dimension that the model sums over: written by hand from the models' sources.
SUMMED = {
    "llama-tied": {r"\.(?:mlp|self_attn)\.\w+_proj\.weight$": 1},
    "llama": {r"\.(?:mlp|self_attn)\.\w+_proj\.weight$": 1},
    "gpt2": {r"\.c_(?:attn|fc|proj)\.weight$": 0},
    "mixtral": {r"self_attn\.\w+_proj\.weight$": 1, r"experts\.\d\.w\d\.weight$": 1},
    "gpt_oss": {r"self_attn\.\w_proj\.weight$": 1, r"experts\.(?:gate_up|down)_proj$": 1},
    "bert": {r"encoder\.layer\.\d\..*(?:query|key|value|dense)\.weight$": 1},
    "t5": {r"block\.\d\.layer\.\d\.(?:SelfAttention|EncDecAttention)\.[qkvo]\.weight$": 1, r"\.w[io]\.weight$": 1},
}


def prune(model: Path, output: Path, *options: str, code: int = 0) -> None:
    assert run(["prune", str(model), "-p", "2:4", "-o", str(output), "--local", "--threads", "1", *options]) == code


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found = {}
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, "pt") as opened:
            found |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    return found


def forward(folder: Path, name: str) -> Any:
    model = getattr(transformers, MODELS[name][0]).from_pretrained(folder)
    ids = torch.arange(8)[None]
    return model, model(input_ids=ids, **({"decoder_input_ids": ids} if name == "t5" else {})).logits


@pytest.mark.parametrize("name", MODELS)
def test_a_pruned_model_loads_runs_and_obeys_the_pattern_along_the_summed_axis(
    saved: Saved, tmp_path: Path, name: str
) -> None:
    source, output = saved(name), tmp_path / "out"
    prune(source, output)
    before, after = tensors(source), tensors(output)
    assert before.keys() == after.keys()
    masked = set()
    for tensor, weight in after.items():
        axis = next((axis for form, axis in SUMMED[name].items() if re.search(form, tensor)), None)
        assert weight.dtype == before[tensor].dtype
        if axis is None:
            assert torch.equal(weight.view(torch.uint8), before[tensor].view(torch.uint8)), tensor
            continue
        masked.add(tensor)
        groups = (weight != 0).movedim(axis, -1).unflatten(-1, (-1, 4)).sum(-1)
        assert (groups == 2).all(), tensor
        assert torch.equal(weight[weight != 0], before[tensor][weight != 0])
        dropped = before[tensor].abs().masked_fill(weight != 0, 0).movedim(axis, -1).unflatten(-1, (-1, 4)).amax(-1)
        kept = before[tensor].abs().masked_fill(weight == 0, 9).movedim(axis, -1).unflatten(-1, (-1, 4)).amin(-1)
        assert (dropped <= kept).all(), tensor
    assert masked
    assert set(Masks.open(output / "masks.safetensors")) == masked
    model, logits = forward(output, name)
    assert torch.isfinite(logits).all()
    if name == "llama-tied":
        assert model.lm_head.weight is model.model.embed_tokens.weight
    assert run(["verify", str(output / "masks.safetensors")]) == 0


def test_the_directory_has_the_same_files_and_a_record(saved: Saved, tmp_path: Path) -> None:
    source, output = saved("llama"), tmp_path / "out"
    prune(source, output, "--exclude", "*.k_proj.weight")
    names = {path.name for path in source.iterdir()}
    assert {path.name for path in output.iterdir()} == names | {"masks.safetensors", "masksmith.json"}
    for name in names - {path.name for path in source.glob("*.safetensors")}:
        assert (output / name).read_bytes() == (source / name).read_bytes()
    record = json.loads((output / "masksmith.json").read_text())
    by_name = {tensor["name"]: tensor for tensor in record["tensors"]}
    assert list(by_name) == list(Checkpoint.open(source).tensors)
    assert by_name["model.layers.0.self_attn.k_proj.weight"]["reason"] == "excluded"
    proved = by_name["model.layers.0.mlp.up_proj.weight"]
    assert proved["status"] == "optimal"
    assert proved["gap"] == 0
    assert proved["objective"] == proved["upper_bound"] > 0
    assert proved["axes"] == "out in"
    from blake3 import blake3

    for kind, folder in (("inputs", source), ("outputs", output)):
        for name, written in record[kind].items():
            assert written["blake3"] == blake3((folder / name).read_bytes()).hexdigest()
    assert record["totals"]["masked"] == 12
    assert Checkpoint.open(output).tensors.keys() == Checkpoint.open(source).tensors.keys()


def test_patterns_layers_and_scores_for_single_tensors(saved: Saved, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = ["prune", str(saved("llama")), "-o", str(output), "--local", "--threads", "1"]
    patterns = ["-p", "1:4", "-p", "mlp=transposable 4:8", "-p", "*.q_proj.weight=2:4"]
    assert run([*command, *patterns, "--scores", "ria power=0", "--layers", "model.layers.1.*"]) == 0
    record = json.loads((output / "masksmith.json").read_text())
    used = {tensor["name"]: tensor["pattern"] for tensor in record["tensors"] if tensor["masked"]}
    assert used["model.layers.1.mlp.up_proj.weight"] == "transposable 4:8"
    assert used["model.layers.1.self_attn.q_proj.weight"] == "2:4"
    assert used["model.layers.1.self_attn.o_proj.weight"] == "1:4"
    assert all(name.startswith("model.layers.1.") for name in used)
    assert run(["verify", str(output / "masks.safetensors")]) == 0


def test_axis_and_ragged_are_those_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weight = np.random.default_rng(0).standard_normal((10, 16)).astype(np.float32)
    save_file({"w": weight}, tmp_path / "model.safetensors")
    model, output = tmp_path / "model.safetensors", tmp_path / "out"
    prune(model, output, "--axis", "out", "--ragged", "dense")
    (after,) = tensors(output).values()
    assert (after != 0).all(dim=1).tolist() == [False] * 8 + [True] * 2
    assert ((after[:8] != 0).unflatten(0, (2, 4)).sum(1) == 2).all()
    (tensor,) = json.loads((output / "masksmith.json").read_text())["tensors"]
    assert (tensor["axis"], tensor["ragged"]) == ("out", "dense")
    assert run(["verify", str(output)]) == 0
    prune(model, output, "--axis", "out", code=2)
    assert "another" in capsys.readouterr().err
    prune(model, tmp_path / "refused", "--axis", "out", "--ragged", "error", code=2)
    assert "'w'" in capsys.readouterr().err


def test_copies_in_other_formats_are_listed_and_not_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = tmp_path / "model", tmp_path / "out"
    (source / "original").mkdir(parents=True)
    (source / "1_Pooling").mkdir()
    (source / ".cache").mkdir()
    others = ["pytorch_model.bin", "consolidated.00.pth", "consolidated.safetensors", "tf_model.h5", "x-Q4_0.gguf"]
    others += ["model.keras", "model.safetensors.bak", "bert.ckpt.data-00000-of-00001"]
    others += ["flax_model.msgpack", "pytorch_model.bin.index.json", "model.onnx", "original/params.json"]
    kept = ["config.json", "tokenizer.json", "modeling_own.py", "chat_template.jinja", "1_Pooling/config.json"]
    for name in [*others, *kept, ".cache/x"]:
        (source / name).write_text("{}")
    save_file({"layers.0.w.weight": np.ones((8, 8), np.float32)}, source / "model.safetensors")
    prune(source, output)
    written = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    assert written == {*kept, "model.safetensors", "masks.safetensors", "masksmith.json"}
    listed = json.loads((output / "masksmith.json").read_text())["not_copied"]
    assert set(listed) == {*others, "original"} - {"original/params.json"}
    assert "not copied" in capsys.readouterr().out


def test_a_single_file_brings_nothing_along_but_its_config(tmp_path: Path) -> None:
    source = tmp_path / "downloads" / "w.safetensors"
    source.parent.mkdir()
    save_file({"w": np.ones((8, 8), np.float32)}, source)
    (source.parent / "letter.txt").write_text("private")
    prune(source, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "w.safetensors",
        "masks.safetensors",
        "masksmith.json",
    }


def test_tied_copies_in_the_file_get_the_same_mask(tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).standard_normal((8, 16)).astype(np.float32)
    weights = {"embed.weight": matrix, "lm_head.weight": matrix, "layers.0.w.weight": matrix[:, :8].copy()}
    save_file(weights, tmp_path / "model.safetensors")
    prune(tmp_path / "model.safetensors", tmp_path / "out", "--layers", "lm_head.weight")
    after = tensors(tmp_path / "out")
    assert torch.equal(after["embed.weight"], after["lm_head.weight"])
    assert int((after["embed.weight"] != 0).sum()) == 64
    masks = Masks.open(tmp_path / "out" / "masks.safetensors")
    assert np.array_equal(masks["embed.weight"], masks["lm_head.weight"])
    command = ["--layers", "lm_head.weight", "--exclude", "embed.weight"]
    prune(tmp_path / "model.safetensors", tmp_path / "out2", *command, code=2)


def test_tied_copies_in_the_file_have_one_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    matrix = np.random.default_rng(0).standard_normal((8, 16)).astype(np.float32)
    weights = {"embed.weight": matrix, "lm_head.weight": matrix, "layers.0.w.weight": matrix[:, :8].copy()}
    save_file(weights, tmp_path / "model.safetensors")
    layout = ["--layout", "lm_head.weight=in out"]
    both = ["--layers", "lm_head.weight", "--layers", "embed.weight"]
    prune(tmp_path / "model.safetensors", tmp_path / "out", *both, *layout, code=2)
    assert "are tied, and their layouts differ: 'in out' and 'out in'" in capsys.readouterr().err
    # A tied copy that is dense by default is masked along the axes of the one that is chosen.
    prune(tmp_path / "model.safetensors", tmp_path / "out", *both[:2], *layout)
    masks = Masks.open(tmp_path / "out" / "masks.safetensors")
    assert {str(info.layout) for info in masks.infos.values()} == {"in out"}
    assert all(masks.verify(dict.fromkeys(masks, matrix)).values())


def test_a_tensor_that_the_index_forgets_is_masked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`from_pretrained` loads all tensors of a file that the index names, the forgotten ones as well."""
    model, output = tmp_path / "model", tmp_path / "out"
    model.mkdir()
    weight = np.arange(1, 65, dtype=np.float32).reshape(8, 8)
    listed, forgotten = (f"model.layers.0.self_attn.{part}_proj.weight" for part in "qk")
    save_file({listed: weight, forgotten: weight}, model / "a.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {listed: "a.safetensors"}}))
    prune(model, output)
    record = json.loads((output / "masksmith.json").read_text())
    assert [(each["name"], each["reason"]) for each in record["tensors"]] == [
        (forgotten, None), (listed, None)
    ]  # fmt: skip
    assert (record["totals"]["tensors"], record["totals"]["zeros"]) == (2, 0.5)
    pruned = load_file(output / "a.safetensors")
    assert {name: np.count_nonzero(pruned[name]) for name in pruned} == {listed: 32, forgotten: 32}
    assert "which the index does not list" in capsys.readouterr().err
    np.copyto(pruned[forgotten], weight)
    save_file(pruned, output / "a.safetensors")
    assert run(["verify", str(output)]) == 1


def test_a_tied_copy_that_the_index_forgets_gets_the_mask(tmp_path: Path) -> None:
    model, output = tmp_path / "model", tmp_path / "out"
    model.mkdir()
    weight = np.arange(1, 65, dtype=np.float32).reshape(8, 8)
    save_file({"model.embed_tokens.weight": weight, "lm_head.weight": weight}, model / "a.safetensors")
    index = {"weight_map": {"model.embed_tokens.weight": "a.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    prune(model, output, "--layers", "model.embed_tokens.weight")
    pruned = load_file(output / "a.safetensors")
    assert np.count_nonzero(pruned["lm_head.weight"]) == 32
    assert np.array_equal(pruned["lm_head.weight"], pruned["model.embed_tokens.weight"])


def test_a_repeated_tensor_becomes_the_one_that_the_index_names(tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    rng = np.random.default_rng(0)
    good, stale, dense = (rng.standard_normal((8, 8)).astype(np.float32) for _ in range(3))
    first = {"layers.0.w.weight": stale, "layers.0.norm.weight": stale[0], "layers.1.w.weight": dense}
    save_file(first, source / "model-1.safetensors")
    save_file({"layers.0.w.weight": good, "layers.0.norm.weight": dense[0]}, source / "model-2.safetensors")
    names = {"layers.1.w.weight": 1, "layers.0.w.weight": 2, "layers.0.norm.weight": 2}
    index = {name: f"model-{number}.safetensors" for name, number in names.items()}
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    prune(source, tmp_path / "out")
    for number in (1, 2):
        with safe_open(tmp_path / "out" / f"model-{number}.safetensors", "np") as file:
            weight = file.get_tensor("layers.0.w.weight")
            assert np.count_nonzero(weight) == 32
            assert np.array_equal(weight[weight != 0], good[weight != 0])
            assert np.array_equal(file.get_tensor("layers.0.norm.weight"), dense[0])
    assert set(Masks.open(tmp_path / "out" / "masks.safetensors")) == {"layers.0.w.weight", "layers.1.w.weight"}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_float_keeps_its_dtype_and_its_bits(tmp_path: Path, dtype: torch.dtype) -> None:
    from safetensors.torch import save_file as save_torch

    weight = torch.randn(12, 40, generator=torch.Generator().manual_seed(1)).to(dtype)
    save_torch({"w": weight}, tmp_path / "model.safetensors")
    prune(tmp_path / "model.safetensors", tmp_path / "out")
    (after,) = tensors(tmp_path / "out").values()
    kept = after != 0
    assert after.dtype == dtype
    assert torch.equal(after[kept], weight[kept])
    assert int(kept.sum()) == 240


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"l.0.p.qweight": np.int32, "l.0.p.scales": np.float16}, "gptq or awq.*made from"),
        ({"l.0.p.weight_packed": np.int32, "l.0.p.weight_scale": np.float16}, "compressed-tensors"),
        ({"l.0.p.weight": np.int8, "l.0.p.SCB": np.float32}, "bitsandbytes.*dequantize"),
        ({"l.0.p.weight": np.uint8, "l.0.p.weight.absmax": np.float32}, "bitsandbytes"),
        ({"l.0.p.weight": np.float32, "l.0.p.weight_scale_inv": np.float32}, "fp8.*bfloat16"),
    ],
)
def test_quantised_checkpoints_are_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: dict[str, Any], message: str
) -> None:
    save_file({name: np.ones((8, 8), dtype) for name, dtype in names.items()}, tmp_path / "model.safetensors")
    prune(tmp_path / "model.safetensors", tmp_path / "out", "--layers", "*", code=2)
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("scores", "message"), [("wanda", "need a calibration"), ("given", "need a calibration"), ("x", "'x'")]
)
def test_scores_that_need_data_are_refused(
    saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str], scores: str, message: str
) -> None:
    prune(saved("llama"), tmp_path / "out", "--scores", scores, code=2)
    assert message in capsys.readouterr().err


def test_a_bad_weight_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"w": np.full((8, 8), np.nan, np.float32)}, tmp_path / "model.safetensors")
    prune(tmp_path / "model.safetensors", tmp_path / "out", code=2)
    assert "'w'" in capsys.readouterr().err
    assert not (tmp_path / "out" / "model.safetensors").exists()
