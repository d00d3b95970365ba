"""`masksmith inspect`: the layout that it shows, and what it refuses."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from masksmith_client.cli.app import run
from masksmith_client.cli.checkpoint_options import parse_layouts

Saved = Callable[[str], Path]


def inspected(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(["inspect", *arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    return document | {"by_name": {tensor["name"]: tensor for tensor in document["tensors"]}}


@pytest.mark.parametrize(
    ("model", "tensor", "axes", "matrices"),
    [
        ("llama", "model.layers.0.mlp.down_proj.weight", "out in", 1),
        ("gpt2", "transformer.h.1.mlp.c_proj.weight", "in out", 1),
        ("gpt_oss", "model.layers.1.mlp.experts.down_proj", "stack in out", 2),
    ],
)
def test_axes_are_those_of_the_product(
    saved: Saved, capsys: pytest.CaptureFixture[str], model: str, tensor: str, axes: str, matrices: int
) -> None:
    row = inspected(capsys, str(saved(model)))["by_name"][tensor]
    assert (row["axes"], row["matrices"], row["masked"]) == (axes, matrices, True)


def test_dense_tensors_come_with_their_reason_and_ties(saved: Saved, capsys: pytest.CaptureFixture[str]) -> None:
    document = inspected(capsys, str(saved("llama-tied")))
    embedding = document["by_name"]["model.embed_tokens.weight"]
    assert not embedding["masked"]
    assert "embedding" in embedding["reason"]
    assert embedding["tied"] == ["lm_head.weight"]
    assert document["totals"]["masked"]["tensors"] == 14
    assert document["tensors"][0] == embedding


def test_the_table_shows_a_line_for_every_tensor(saved: Saved, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(saved("gpt2")), "--pattern", "2:4", "--exclude", "*.c_fc.weight"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (row,) = (line for line in lines if line.startswith("transformer.h.0.mlp.c_fc.weight"))
    assert "excluded" in row
    (row,) = (line for line in lines if line.startswith("transformer.h.0.attn.c_attn.weight"))
    assert "in out" in row
    assert "yes: 2:4" in row
    assert lines[-1].endswith("6 masked, 6 matrices of 16,384 parameters")


def test_the_callers_layout_counts_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"w1": np.ones((3, 32, 64), np.float32), "w2": np.ones((8, 16), np.float32)}, tmp_path / "m.safetensors")
    path = str(tmp_path / "m.safetensors")
    document = inspected(capsys, path)
    assert "may be a convolution or stacked" in document["by_name"]["w1"]["reason"]
    assert any("no config.json" in note for note in document["notes"])
    row = inspected(capsys, path, "--layout", "w1=stack in out")["by_name"]["w1"]
    assert (row["axes"], row["rule"], row["matrices"], row["masked"]) == ("stack in out", "user", 3, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layout", "w9=out in"], "no tensor has this name"),
        (["--layout", "w2"], "is not NAME=AXES"),
        (["--layout", "w2=out out"], "once each"),
        (["--layout", "w2=stack out in"], "'w2'.*has 2"),
        (["--exclude", "nothing*"], r"nothing\*"),
        (["--layers", "w3"], "fewer|dimension|dtype"),
        (["--pattern", "mlp=2:4"], "no tensor has this name"),
    ],
)
def test_what_means_nothing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    save_file({"w2": np.ones((8, 16), np.float32), "w3": np.ones(16, np.int64)}, tmp_path / "m.safetensors")
    if options[0] == "--layers":
        options = [*options, "--pattern", "2:4"]
    assert run(["inspect", str(tmp_path / "m.safetensors"), *options]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error


def test_inspecting_a_quantised_checkpoint_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = {"l.0.p.qweight": np.ones((8, 8), np.int32), "l.0.p.scales": np.ones((8, 8), np.float16)}
    save_file(tensors, tmp_path / "m.safetensors")
    document = inspected(capsys, str(tmp_path / "m.safetensors"))
    assert not any(tensor["masked"] for tensor in document["tensors"])
    assert any("gptq or awq" in note for note in document["notes"])


def test_the_name_of_a_layout_may_contain_an_equals_sign() -> None:
    assert parse_layouts(["x=y.w1=stack in out"]) == {"x=y.w1": "stack in out"}


@pytest.mark.parametrize("texts", [("w1=in out", "w*=out in"), ("*=out in", "w1=in out"), ("*=in out", "w2=out in")])
def test_the_layout_of_a_full_name_has_precedence_over_a_glob(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], texts: tuple[str, str]
) -> None:
    save_file({name: np.ones((8, 16), np.float32) for name in ("w1", "w2")}, tmp_path / "m.safetensors")
    arguments = [part for text in texts for part in ("--layout", text)]
    by_name = inspected(capsys, str(tmp_path / "m.safetensors"), *arguments)["by_name"]
    assert (by_name["w1"]["axes"], by_name["w2"]["axes"]) == ("in out", "out in")


@pytest.mark.parametrize("command", [("inspect",), ("solve", "--local", "-p", "2:4", "-o", "masks")])
def test_a_malformed_layout_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    save_file({"w1": np.ones((8, 16), np.float32)}, tmp_path / "m.safetensors")
    assert run([command[0], str(tmp_path / "m.safetensors"), *command[1:], "--layout", "w1=in"]) == 2
    assert "the layout of 'w1': axes 'in' must say 'out' and 'in' once each" in capsys.readouterr().err
