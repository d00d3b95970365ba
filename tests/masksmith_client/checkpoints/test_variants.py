"""Variants of sharded checkpoints: `model.safetensors.index.fp16.json` and the files that it lists."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import transformers

from masksmith_client import InputError
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.files import find_weights, is_listed
from masksmith_client.cli.app import run

Saved = Callable[[str], Path]


def test_the_index_of_a_variant_is_an_index(saved: Saved, tmp_path: Path) -> None:
    """`from_pretrained(variant="fp16")` reads the files that `*.index.fp16.json` lists."""
    shutil.copytree(saved("llama"), tmp_path / "model")
    default = tmp_path / "model" / "model.safetensors.index.json"
    index = default.with_name("model.safetensors.index.fp16.json")
    name, file = next(iter(json.loads(default.read_text())["weight_map"].items()))
    index.write_text(json.dumps({"weight_map": {name: file}}))
    (default.parent / "config.json").unlink()
    assert Checkpoint.open(default.parent).weights == default
    assert [path.name for path in Checkpoint.open(index).headers] == [file]
    default.unlink()
    assert Checkpoint.open(default.parent).weights == index
    assert [path.name for path in default.parent.glob("*.safetensors") if is_listed(path)] == [file]
    with pytest.raises(InputError, match="the index of pickles"):
        find_weights(index.with_name("pytorch_model.bin.index.fp16.json"))


def test_a_variant_alone_is_pruned_with_its_index(saved: Saved, tmp_path: Path) -> None:
    """As of a download of the variant alone; `from_pretrained(variant="fp16")` loads both."""
    model, output = tmp_path / "model", tmp_path / "output"
    model.mkdir()
    for path in saved("llama").iterdir():
        variant = path.name.replace("model-", "model.fp16-").replace("index.json", "index.fp16.json")
        (model / variant).write_bytes(path.read_bytes())
    index = model / "model.safetensors.index.fp16.json"
    index.write_text(index.read_text().replace("model-", "model.fp16-"))
    assert run(["prune", str(model), "-p", "2:4", "-o", str(output), "--local"]) == 0
    before, after = (
        transformers.LlamaForCausalLM.from_pretrained(each, variant="fp16").model.layers[0].mlp.up_proj.weight
        for each in (model, output)
    )
    assert (int(before.count_nonzero()), int(after.count_nonzero())) == (before.numel(), before.numel() // 2)
