"""`masksmith verify` of weights: what obeys passes, one value too many is named with its index."""

import json
import re
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.fp8 import BLOCKS, WEIGHT, compressed, quantised, write

import masksmith as ms
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.cli.app import run
from masksmith_wire.masks import MaskInfo, file_header, pack

Saved = Callable[[str], Path]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="session")
def pruned(saved: Saved, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Prune a tiny model to 2:4, once; tests copy it before they change it."""
    folders: dict[str, Path] = {}

    def prune(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("pruned") / name
            assert run(["prune", str(saved(name)), "-p", "2:4", "-o", str(folders[name]), "--local"]) == 0
        return folders[name]

    return prune


def verified(capsys: Capture, *arguments: object, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["verify", *map(str, arguments), "--json"]) == code
    document = json.loads(capsys.readouterr().out)
    return document | {"by_name": {tensor["name"]: tensor for tensor in document["tensors"]}}


def set_one(folder: Path, name: str, index: tuple[int, ...], value: float = 3.0) -> None:
    """Write one value into a file of weights."""
    file = Checkpoint.open(folder).tensors[name].file
    tensors = load_file(file)
    tensors[name][index] = value
    save_file(tensors, file, {"format": "pt"})


# Model, tensor, summed dimension, and an index of the tensor.
PLACES = [
    ("llama", "model.layers.1.mlp.down_proj.weight", 1, (5, 18)),
    ("gpt2", "transformer.h.1.mlp.c_proj.weight", 0, (70, 9)),
    ("gpt_oss", "model.layers.1.mlp.experts.gate_up_proj", 1, (1, 13, 70)),
    ("t5", "encoder.block.1.layer.1.DenseReluDense.wo.weight", 1, (31, 63)),
]


@pytest.mark.parametrize(("model", "name", "dim", "index"), PLACES)
def test_a_pruned_model_obeys_and_one_value_too_many_is_named(
    pruned: Saved, tmp_path: Path, capsys: Capture, model: str, name: str, dim: int, index: tuple[int, ...]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(pruned(model), folder)
    by_masks, by_pattern = verified(capsys, folder), verified(capsys, folder, "-p", "2:4")
    assert list(by_masks["by_name"]) == list(by_pattern["by_name"])
    for document in (by_masks, by_pattern):
        assert document["ok"]
        assert document["totals"]["density"] == 0.5
        assert document["totals"]["checked"] + len(document["not_checked"]) == document["totals"]["tensors"]
        assert all(each["pattern"] == "2:4" and each["density"] == 0.5 for each in document["tensors"])
    checkpoint = Checkpoint.open(folder)
    weight = load_file(checkpoint.tensors[name].file)[name]
    group = [[*index[:dim], index[dim] // 4 * 4 + place, *index[dim + 1 :]] for place in range(4)]
    zero = next(tuple(entry) for entry in group if weight[tuple(entry)] == 0)
    set_one(folder, name, zero)
    broken = verified(capsys, folder, code=1)["by_name"]
    assert broken[name]["index"] == list(zero)
    assert f"1 non-zero(s) outside its mask, the first at the entry {list(zero)}" == broken[name]["message"]
    assert [each for each in broken if not broken[each]["ok"]] == [name]
    broken = verified(capsys, folder, "-p", "2:4", code=1)["by_name"]
    first = next(entry for entry in group if entry == list(zero) or weight[tuple(entry)] != 0)
    assert broken[name]["index"] == first
    assert broken[name]["message"].endswith(f"at the entry {first}")
    assert [each for each in broken if not broken[each]["ok"]] == [name]
    assert run(["verify", str(folder)]) == 1
    output = capsys.readouterr().out
    assert re.search(rf"^{re.escape(name)} +VIOLATION: 1 non-zero", output, re.MULTILINE)
    assert output.splitlines()[-1].endswith(": 1 with a violation")


def test_fewer_non_zeros_obey_and_the_source_does_not(
    pruned: Saved, saved: Saved, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(pruned("llama"), folder)
    set_one(folder, "model.layers.0.mlp.up_proj.weight", (slice(3, 9), slice(None)), -0.0)
    assert verified(capsys, folder)["by_name"]["model.layers.0.mlp.up_proj.weight"]["density"] < 0.5
    assert verified(capsys, folder, "-p", "2:4")["ok"]
    masks = pruned("llama") / "masks.safetensors"
    document = verified(capsys, saved("llama"), "--masks", masks, code=1)
    assert document["totals"]["broken"] == document["totals"]["checked"] == 14
    assert verified(capsys, saved("llama"), "-p", "2:4", code=1)["totals"]["broken"] == 14


def test_patterns_for_single_tensors_and_what_is_left_out(saved: Saved, tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / "out"
    patterns = ["-p", "1:4", "-p", "mlp=transposable 4:8"]
    assert (
        run(["prune", str(saved("llama")), *patterns, "-o", str(output), "--local", "--exclude", "*.q_proj.weight"])
        == 0
    )
    index = next(output.glob("*.index.json"))
    document = verified(capsys, index, *patterns, "--exclude", "*.q_proj.weight")
    assert document["by_name"]["model.layers.0.mlp.up_proj.weight"]["pattern"] == "transposable 4:8"
    assert document["by_name"]["model.layers.0.self_attn.k_proj.weight"]["density"] == 0.25
    reasons = {each["name"]: each["reason"] for each in document["not_checked"]}
    assert reasons["model.layers.0.self_attn.q_proj.weight"] == "excluded"
    assert "an embedding" in reasons["model.embed_tokens.weight"]
    assert not verified(capsys, output, *patterns, code=1)["by_name"]["model.layers.0.self_attn.q_proj.weight"]["ok"]
    reasons = {each["name"]: each["reason"] for each in verified(capsys, output)["not_checked"]}
    assert reasons["model.layers.0.self_attn.q_proj.weight"] == "no mask"


LAYOUTS = ["out in", "in out", "stack out in", "stack in out", "in stack out", "out in kernel", "out in kernel kernel"]


@pytest.mark.parametrize("axes", LAYOUTS)
@pytest.mark.parametrize(("pattern", "axis"), [("2:4", "in"), ("2:4", "out"), ("transposable 1:2", "in")])
def test_the_index_is_right_in_every_layout(
    tmp_path: Path, capsys: Capture, axes: str, pattern: str, axis: str
) -> None:
    """One group has too many: its entries are found by moving the axes, independently of the product."""
    words = axes.split()
    lengths = {"out": 12, "in": 20, "stack": 3, "kernel": 5}
    shape = tuple(lengths[word] for word in words)
    size = 4 if pattern == "2:4" else 2
    dim, rng = words.index(axis), np.random.default_rng(len(axes))
    for _ in range(4):
        weight, index = torch.zeros(shape), tuple(int(rng.integers(length)) for length in shape)
        start = index[dim] // size * size
        group = [(*index[:dim], start + place, *index[dim + 1 :]) for place in range(size)]
        for entry in group:
            weight[entry] = 1
        save_file({"w": weight}, tmp_path / "w.safetensors")
        options = ["--layout", f"w={axes}", "--layers", "w", *(["--axis", axis] if axis == "out" else [])]
        document = verified(capsys, tmp_path / "w.safetensors", "-p", pattern, *options, code=1)
        assert document["by_name"]["w"]["index"] == list(group[0])


DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I8": torch.int8,
    "U8": torch.uint8, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("entries", [7, 2**20])
def test_every_dtype_is_read_by_value_in_bands_of_any_height(
    tmp_path: Path, capsys: Capture, dtype: str, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("masksmith_client.checkpoints.nonzeros.BAND_ENTRIES", entries)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(1, 8, (12, 40), generator=generator)
    mask = np.asarray(ms.solve(np.random.default_rng(0).random((12, 40)), "2:4").mask)
    kept = (weight * torch.from_numpy(mask)).to(torch.float32)
    if not dtype.endswith("8"):
        kept = torch.where(torch.from_numpy(mask), kept, -0.0)
    info = MaskInfo.of((12, 40), ms.parse("2:4"), None)
    masks, path = tmp_path / "masks", tmp_path / "w.safetensors"
    masks.write_bytes(file_header({"w": info}) + pack(mask).tobytes())
    save_file({"w": kept.to(DTYPES[dtype])}, path)
    for options in (["--masks", masks], ["-p", "2:4", "--layers", "w"]):
        assert verified(capsys, path, *options)["by_name"]["w"]["density"] == 0.5
    row, col = (int(places[-1]) for places in np.nonzero(~mask))
    kept[row, col] = 1 if dtype in ("I8", "U8") else torch.nan
    save_file({"w": kept.to(DTYPES[dtype])}, path)
    assert verified(capsys, path, "--masks", masks, code=1)["by_name"]["w"]["index"] == [row, col]
    assert not verified(capsys, path, "-p", "2:4", "--layers", "w", code=1)["ok"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("50%", "320 entries are kept instead of 160"),
        ("channels 50%", "channels"),
        ("block 4x4 50%", "blocks"),
        ("hybrid 4x4 2:4 50%", "20 blocks keep more than 2:4, only 10 may"),
        ("8:2:8", "panel"),
    ],
)
def test_patterns_of_whole_tensors_say_where(tmp_path: Path, capsys: Capture, pattern: str, message: str) -> None:
    weight = torch.randn(16, 20)
    save_file({"w": weight}, tmp_path / "w.safetensors")
    broken = verified(capsys, tmp_path / "w.safetensors", "-p", pattern, code=1)["by_name"]["w"]
    assert message in broken["message"]
    assert broken["index"] is None
    weight *= torch.from_numpy(np.asarray(ms.solve(weight.abs().numpy(), pattern).mask))
    save_file({"w": weight}, tmp_path / "w.safetensors")
    assert verified(capsys, tmp_path / "w.safetensors", "-p", pattern)["ok"]


def test_no_copy_of_a_tensor_is_in_memory(tmp_path: Path, capsys: Capture) -> None:
    path, shape = tmp_path / "w.safetensors", (2048, 4096)
    save_file({"w": torch.zeros(shape, dtype=torch.float64)}, path)
    for options in (["--masks", masks_of(tmp_path / "masks", {"w": shape}, "<=2:4")], ["-p", "2:4"]):
        verified(capsys, path, *options)
        tracemalloc.start()
        verified(capsys, path, *options)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2048 * 4096 * 8 / 2


INT8 = compressed("channel", num_bits=8, type="int") | {"format": "int-quantized"}


@pytest.mark.parametrize(
    ("config", "scale", "dtype"),
    [
        (INT8, WEIGHT + "_scale", torch.int8),
        (None, WEIGHT + "_scale", torch.int8),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, WEIGHT.removesuffix("weight") + "SCB", torch.int8),
        (compressed("channel"), WEIGHT + "_scale", torch.float8_e4m3fn),
        ({"quant_method": "fbgemm_fp8"}, WEIGHT + "_scale", torch.float8_e4m3fn),
        (None, "model.layers.0.norm.weight", torch.float8_e4m3fn),
    ],
)
def test_a_weight_that_was_quantised_after_pruning_is_checked(
    tmp_path: Path, capsys: Capture, config: dict[str, Any] | None, scale: str, dtype: torch.dtype
) -> None:
    weight = torch.randn(12, 40, generator=torch.Generator().manual_seed(0)) * 30 + 100
    weight *= torch.from_numpy(np.asarray(ms.solve(weight.abs().numpy(), "2:4").mask))
    tensors = {WEIGHT: weight.to(dtype), scale: torch.ones(12, 1)}
    document = verified(capsys, write(tmp_path / "model", tensors, config), "-p", "2:4")
    assert list(document["by_name"]) == [WEIGHT]
    tensors[WEIGHT].view(torch.uint8)[2, :] = 1
    verified(capsys, write(tmp_path / "model", tensors, config), "-p", "2:4", code=1)


def test_an_fp8_model_is_verified_after_it_was_pruned(tmp_path: Path, capsys: Capture) -> None:
    weight, scale = quantised((12, 40), (3, 7))
    folder = write(tmp_path / "model", {WEIGHT: weight, WEIGHT + "_scale_inv": scale}, BLOCKS)
    verified(capsys, folder, "-p", "2:4", code=1)
    assert run(["prune", str(folder), "-p", "2:4", "-o", str(tmp_path / "out"), "--local"]) == 0
    assert verified(capsys, tmp_path / "out")["totals"]["checked"] == 1
    assert verified(capsys, tmp_path / "out", "-p", "2:4")["totals"]["checked"] == 1


def test_a_mask_that_breaks_its_own_pattern_is_named(pruned: Saved, tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "model"
    shutil.copytree(pruned("llama"), folder)
    name, file = "model.layers.0.mlp.up_proj.weight", folder / "masks.safetensors"
    data = bytearray(file.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    offset = json.loads(data[8:start])[name]["data_offsets"][0]
    data[start + offset] = 255
    file.write_bytes(data)
    assert "its mask violates its pattern: 2 of" in verified(capsys, folder, code=1)["by_name"][name]["message"]
    (shard,) = (path for path in folder.glob("model*.safetensors") if name in load_file(path))
    weights = load_file(shard)
    weights[name].fill_(1)
    save_file(weights, shard)
    message = verified(capsys, folder, code=1)["by_name"][name]["message"]
    assert re.search(r"violates its pattern: 2 of .*; [\d,]+ non-zero\(s\) outside its mask, the first at", message)


def masks_of(path: Path, masks: dict[str, tuple[int, ...]], pattern: str = "2:4") -> Path:
    infos = {name: MaskInfo.of(shape, ms.parse(pattern), None) for name, shape in masks.items()}
    data = b"".join(pack(np.zeros(shape, np.bool_)).tobytes() for shape in masks.values())
    path.write_bytes(file_header(infos) + data)
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{file}"], "has no record of its masks; pass --pattern"),
        (["{file}", "-p", "2:4", "--masks", "{masks}"], "pass one of them"),
        (["{file}", "--masks", "{masks}", "--layers", "w"], "need --pattern"),
        (["{file}", "--masks", "{masks}", "--axis", "out"], "need --pattern"),
        (["{file}", "--masks", "{other}"], "mask of 'absent'.*no such tensor"),
        (["{file}", "--masks", "{shape}"], r"mask of 'w' has the shape \[8, 4\].*the tensor has \[8, 8\]"),
        (["{file}", "--masks", "{empty}"], "no mask: there is nothing to verify"),
        (["{file}", "--masks", "{file}"], "is not a mask"),
        (["{file}", "--masks", "{folder}/nowhere"], "cannot be read"),
        (["{file}", "-p", "2:4", "--layers", "v"], "'v' cannot be masked"),
        (["{file}", "-p", "2:4", "--exclude", "w"], "can be masked"),
        (["{file}", "-p", "2:4", "--exclude", "zzz"], "zzz"),
        (["{file}", "-p", "mlp=2:4"], "'mlp'"),
        (["{file}", "-p", "5:4"], "5:4"),
        (["{file}", "-p", "2:16", "--ragged", "error", "--layers", "w"], "'w' cannot be masked.*16"),
        (["{file}", "-p", "2:16", "--ragged", "error"], "can be masked.*16"),
        (["{masks}", "--masks", "{masks}"], "is a masks file"),
        (["{masks}", "--layers", "w"], "is a masks file"),
        (["{masks}", "-p", "mlp=2:4"], "'mlp'"),
        (["{empty}"], "nothing to verify"),
        (["{folder}/absent"], "does not exist"),
        (["{folder}/pickle.bin"], "is a pickle"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_named_at_once(tmp_path: Path, capsys: Capture, arguments: list[str], message: str) -> None:
    places = {
        "file": tmp_path / "w.safetensors",
        "folder": tmp_path,
        "masks": masks_of(tmp_path / "masks", {"w": (8, 8)}),
        "other": masks_of(tmp_path / "other", {"w": (8, 8), "absent": (8, 8)}),
        "shape": masks_of(tmp_path / "shape", {"w": (8, 4)}),
        "empty": masks_of(tmp_path / "empty", {}),
    }
    (tmp_path / "pickle.bin").write_bytes(b"x")
    save_file({"w": torch.ones(8, 8), "v": torch.ones(8)}, places["file"])
    assert run(["verify", *(word.format(**places) for word in arguments)]) == 2
    captured = capsys.readouterr()
    assert re.search(message, captured.err), captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        ({"l.0.p.qweight": torch.int32}, None, "gptq or awq"),
        ({"l.0.p.weight": torch.uint8, "l.0.p.weight.absmax": torch.float32}, None, "bitsandbytes"),
        ({"l.0.p.weight": torch.int8, "l.0.p.weight_zero_point": torch.int8}, INT8, "has a zero point"),
        ({"l.0.p.weight_packed": torch.int32}, compressed("group"), "compressed-tensors"),
        ({"l.0.p.weight": torch.uint8}, {"quant_method": "modelopt"}, "'modelopt'"),
        ({"l.0.p.weight": torch.float32}, INT8 | {"sparsity_config": {"format": "sparse-bitmask"}}, "sparse-bitmask"),
    ],
)
def test_packed_weights_and_zero_points_are_refused(
    tmp_path: Path, capsys: Capture, tensors: dict[str, torch.dtype], config: dict[str, Any] | None, message: str
) -> None:
    values = {name: torch.ones(8, 8, dtype=dtype) for name, dtype in tensors.items()}
    scales = {"l.0.p.weight_scale": torch.ones(8, 1)} if config is INT8 else {}
    folder = write(tmp_path / "model", values | scales, config)
    assert run(["verify", str(folder), "-p", "2:4"]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert "dequantise" in error or "transformers" in error


def test_an_unfinished_or_changed_directory_is_refused(pruned: Saved, tmp_path: Path, capsys: Capture) -> None:
    def refused(change: Callable[[Path], object], message: str) -> None:
        folder = tmp_path / message.replace(" ", "-").replace("/", "")
        shutil.copytree(pruned("llama"), folder)
        change(folder)
        capsys.readouterr()
        assert run(["verify", str(folder)]) == 2
        assert message in capsys.readouterr().err

    refused(lambda folder: (folder / ".masksmith-journal.jsonl").write_text("{}"), "is the unfinished output")
    refused(lambda folder: (folder / "masks.safetensors").unlink(), "masks.safetensors is missing")
    refused(lambda folder: (folder / "masksmith.json").unlink(), "has no record of its masks")
    refused(lambda folder: (folder / "masksmith.json").write_text("{"), "is not the record")
    refused(lambda folder: masks_of(folder / "masks.safetensors", {"a": (4, 4)}), "differ")
