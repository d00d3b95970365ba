"""`masksmith solve` and the SDK read a directory as `prune` and `inspect` do: one door for layouts."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from masksmith.patterns import TensorPatterns
from masksmith_client import Masks
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.choice import ChoiceOptions, choose
from masksmith_client.cli.app import run
from masksmith_client.submission.prepare import prepare

Saved = Callable[[str], Path]


@pytest.mark.parametrize("name", ["llama-tied", "gpt2", "gpt_oss", "bert"])
def test_a_job_has_the_tensors_and_layouts_that_prune_chooses(saved: Saved, name: str) -> None:
    choice = choose(Checkpoint.open(saved(name)), ChoiceOptions(TensorPatterns.of("2:4")))
    job = prepare(saved(name), "2:4")
    assert {weight.name: weight.layout for weight in job.weights} == {
        tensor.name: tensor.layout for tensor in choice.masked_tensors
    }
    assert "model" in {weight.layout.rule for weight in job.weights if weight.layout is not None}
    sent = job.request(["0" * 64] * len(job.weights)).tensors
    assert all(tensor.layout is not None and tensor.layout.rule == "model" for tensor in sent)


def test_the_command_takes_layouts_and_gives_the_masks_of_prune(saved: Saved, tmp_path: Path) -> None:
    masks, output = tmp_path / "masks.safetensors", tmp_path / "out"
    assert run(["solve", str(saved("gpt2")), "-p", "2:4", "-o", str(masks), "--local"]) == 0
    assert run(["prune", str(saved("gpt2")), "-p", "2:4", "-o", str(output), "--local"]) == 0
    one, other = Masks.open(masks), Masks.open(output / "masks.safetensors")
    assert set(one) == set(other)
    assert all((one[name] == other[name]).all() for name in one)
    name = "transformer.h.0.attn.c_attn.weight"
    options = ["--layers", name, "--layout", f"{name}=out in"]
    assert run(["solve", str(saved("gpt2")), "-p", "2:4", "-o", str(masks), "--local", *options]) == 0
    assert Masks.open(masks).infos[name].axes is None
    assert run(["solve", str(saved("gpt2")), "-p", "2:4", "-o", str(masks), "--local", "--layout", "x"]) == 2


def test_what_could_not_be_seen_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, masks = tmp_path / "model", str(tmp_path / "masks.safetensors")
    folder.mkdir()
    save_file({"layers.0.w.weight": np.ones((8, 8), np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "unheard-of"}))
    job = prepare(folder, "2:4")
    assert len(job.notes) == 1
    assert "unheard-of" in job.notes[0]
    assert run(["solve", str(folder), "-p", "2:4", "-o", masks, "--local"]) == 0
    assert job.notes[0] in capsys.readouterr().err.replace("\n", " ")
    assert run(["solve", str(folder), "-p", "2:4", "-o", masks, "--local", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == list(job.notes)
    assert prepare(folder / "model.safetensors", "2:4").notes == job.notes
    (folder / "config.json").unlink()
    assert prepare(folder / "model.safetensors", "2:4").notes == []
    assert "config.json" in prepare(folder, "2:4").notes[0]
