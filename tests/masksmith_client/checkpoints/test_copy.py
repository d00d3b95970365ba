"""`apply` and `solve --weights-out` write a model's directory as `prune` does."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

from masksmith_client import InputError
from masksmith_client.checkpoints import copy
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.copy import write_copy
from masksmith_client.cli.app import run

Saved = Callable[[str], Path]


@pytest.fixture
def masks(saved: Saved, tmp_path: Path) -> Path:
    """Masks of the model's matrices, each keeping half of its entries."""
    path = tmp_path / "masks.safetensors"
    assert run(["solve", str(saved("llama")), "--local", "-p", "2:4", "-o", str(path)]) == 0
    return path


def load(folder: Path) -> dict[str, torch.Tensor]:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    return dict(model.state_dict())


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_masks_are_applied_to_a_directory(saved: Saved, masks: Path, tmp_path: Path) -> None:
    model, output = saved("llama"), tmp_path / "pruned"
    assert run(["apply", str(masks), str(model), "-o", str(output)]) == 0
    assert names(output) == names(model)
    before, after = load(model), load(output)
    kept = {name: (after[name] != 0).float().mean() for name in after if "proj" in name}
    assert kept
    assert all(share == 0.5 for share in kept.values())
    for name, weight in after.items():
        expected = torch.where(weight != 0, before[name], 0) if name in kept else before[name]
        assert torch.equal(weight, expected)


def test_the_directory_obeys_the_pattern_by_verify(saved: Saved, masks: Path, tmp_path: Path) -> None:
    output = tmp_path / "pruned"
    assert run(["apply", str(masks), str(saved("llama")), "-o", str(output)]) == 0
    assert run(["verify", str(output), "--pattern", "2:4"]) == 0


def test_updated_weights_become_a_directory(saved: Saved, tmp_path: Path) -> None:
    model, output = saved("llama"), tmp_path / "new" / "updated"  # Missing parents are created, too.
    checkpoint = Checkpoint.open(model)
    rng, grams = np.random.default_rng(0), {}
    for name, tensor in checkpoint.tensors.items():
        if "proj" in name:
            inputs = rng.standard_normal((64, tensor.shape[1]))
            grams[name + "/gram"] = torch.from_numpy((inputs.T @ inputs).astype(np.float32))
    save_file(grams, tmp_path / "calibration.safetensors")
    arguments = ["--calibration", str(tmp_path / "calibration.safetensors"), "--update", "reconstruct"]
    files = ["-o", str(tmp_path / "masks.safetensors"), "--weights-out", str(output)]
    assert run(["solve", str(model), "--local", "-p", "2:4", *arguments, *files]) == 0
    assert names(output) == names(model)
    before, after = load(model), load(output)
    for name, weight in after.items():
        if "proj" in name:
            assert (weight != 0).float().mean() <= 0.5
            assert not torch.equal(weight, torch.where(weight != 0, before[name], 0))
        else:
            assert torch.equal(weight, before[name])
    assert [path.name for path in tmp_path.glob(".masksmith-*")] == []


@pytest.mark.parametrize(("content", "message"), [("masksmith.json", "pruned checkpoint"), (None, "is in ")])
def test_a_folder_that_would_be_refused_at_the_end_is_refused_before_any_work(
    saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, message: str
) -> None:
    output, masks = tmp_path / "output", tmp_path / "masks.safetensors"
    output.mkdir()
    if content is None:
        masks = output / "masks.safetensors"
    else:
        (output / content).write_text("{}")
    files = ["-o", str(masks), "--weights-out", str(output), "--update", "reconstruct", "--calibration", "missing"]
    assert run(["solve", str(saved("llama")), "--local", "-p", "2:4", *files]) == 2
    assert message in capsys.readouterr().err
    assert not masks.exists()


@pytest.mark.parametrize("content", ["other", "pruned", "model"])
def test_a_directory_of_something_else_is_refused(
    saved: Saved, masks: Path, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    if content == "other":
        output.mkdir()
        (output / "notes.txt").write_text("mine")
    elif content == "pruned":
        assert run(["prune", str(saved("llama")), "--local", "-p", "2:4", "-o", str(output)]) == 0
    before = saved("llama") if content == "model" else output
    state = sorted((path.name, path.stat().st_mtime_ns) for path in before.iterdir())
    assert run(["apply", str(masks), str(saved("llama")), "-o", str(before)]) == 2
    assert "name " in capsys.readouterr().err
    assert sorted((path.name, path.stat().st_mtime_ns) for path in before.iterdir()) == state


class StoppedError(Exception):
    pass


@pytest.fixture
def interrupted(saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, str]:
    """A model, the output of a copy of it that ended after the first file, and the name of that file."""
    model, output = tmp_path / "model", tmp_path / "output"
    shutil.copytree(saved("llama"), model)
    real, written = copy._write_file, []

    def stops_at_second(checkpoint, file, *rest):
        if written:
            raise StoppedError
        written.append(file.name)
        return real(checkpoint, file, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(copy, "_write_file", stops_at_second)
        with pytest.raises(StoppedError):
            write_copy(Checkpoint.open(model), output, lambda name: None, "same", lambda count: None)
    return model, output, written[0]


@pytest.mark.parametrize("damage", ["removed", "shortened", "changed"])
def test_a_finished_file_that_is_damaged_is_written_again(interrupted: tuple[Path, Path, str], damage: str) -> None:
    model, output, name = interrupted
    content = (output / name).read_bytes()
    (output / name).unlink()
    if damage != "removed":
        (output / name).write_bytes(content[:-8] + (b"" if damage == "shortened" else bytes(8)))
    write_copy(Checkpoint.open(model), output, lambda name: None, "same", lambda count: None)
    for path in model.iterdir():
        assert (output / path.name).read_bytes() == path.read_bytes()


def test_an_input_that_was_replaced_is_refused_by_its_bytes(interrupted: tuple[Path, Path, str]) -> None:
    model, output, name = interrupted
    state, content = (model / name).stat(), (model / name).read_bytes()
    (model / name).write_bytes(content[:-8] + bytes(8))
    os.utime(model / name, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(InputError, match=f"{name} has changed since .* was begun"):
        write_copy(Checkpoint.open(model), output, lambda name: None, "same", lambda count: None)


def test_a_tensor_that_the_index_moves_to_another_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, output = tmp_path / "model", tmp_path / "output"
    model.mkdir()
    files = ["a.safetensors", "b.safetensors"]
    for number, file in enumerate(files):
        save_file({"both": torch.full((4, 4), float(number)), file[0]: torch.ones(4, 4)}, model / file)
    index = {"a": files[0], "b": files[1], "both": files[0]}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    real = copy._write_file

    def stops_at_second(checkpoint, file, *rest):
        if file.name == files[1]:
            raise StoppedError
        return real(checkpoint, file, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(copy, "_write_file", stops_at_second)
        with pytest.raises(StoppedError):
            write_copy(Checkpoint.open(model), output, lambda name: None, "same", lambda count: None)
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index | {"both": files[1]}}))
    with pytest.raises(InputError, match="unfinished output of another run: index differ"):
        write_copy(Checkpoint.open(model), output, lambda name: None, "same", lambda count: None)


def test_an_input_that_changes_while_it_is_read_is_refused(saved: Saved, tmp_path: Path) -> None:
    model, output = tmp_path / "model", tmp_path / "output"
    shutil.copytree(saved("gpt2"), model)

    def touching(name: str) -> None:
        for file in model.glob("*.safetensors"):
            os.utime(file, ns=(0, 0))

    with pytest.raises(InputError, match=r"\.safetensors has changed since .* was begun"):
        write_copy(Checkpoint.open(model), output, touching, "same", lambda count: None)
    assert not output.exists()


def test_a_run_that_ended_goes_on_after_the_last_finished_file(
    saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, output, written = Checkpoint.open(saved("llama")), tmp_path / "output", []
    real = copy._write_file

    def stops_at_second(checkpoint, file, *rest):
        if len(written) == 1:
            raise StoppedError
        written.append(file.name)
        return real(checkpoint, file, *rest)

    monkeypatch.setattr(copy, "_write_file", stops_at_second)
    with pytest.raises(StoppedError):
        write_copy(checkpoint, output, lambda name: None, "same", lambda count: None)
    finished = set(written)
    assert finished <= names(output)
    with pytest.raises(InputError, match="unfinished output"):
        write_copy(checkpoint, output, lambda name: None, "another", lambda count: None)
    written.clear()
    monkeypatch.setattr(copy, "_write_file", lambda *given: written.append(given[1].name) or real(*given))
    write_copy(checkpoint, output, lambda name: None, "same", lambda count: None)
    assert set(written) == {file.name for file in checkpoint.headers} - finished
    for path in saved("llama").iterdir():
        assert (output / path.name).read_bytes() == path.read_bytes()


def test_a_tensor_that_a_shard_repeats_gets_the_same_values(saved: Saved, masks: Path, tmp_path: Path) -> None:
    model, output = tmp_path / "model", tmp_path / "output"
    model.mkdir()
    for path in saved("llama").iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    index_path = next(model.glob("*.index.json"))
    shards = json.loads(index_path.read_text())["weight_map"]
    name = "model.layers.0.self_attn.q_proj.weight"
    save_file({name: torch.ones(32, 32, dtype=torch.bfloat16), "x": torch.ones(1)}, model / "another.safetensors")
    index = {"weight_map": shards | {"x": "another.safetensors"}}
    index_path.write_text(json.dumps(index))
    assert run(["apply", str(masks), str(model), "-o", str(output)]) == 0
    copies = [Checkpoint.open(output / file).tensors[name] for file in (shards[name], "another.safetensors")]
    first, second = (b"".join(bytes(piece) for piece in tensor.pieces()) for tensor in copies)
    assert first == second


def test_weights_of_8_bit_floats_are_not_updated_into_a_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    weight = torch.randn(128, 128).to(torch.float8_e4m3fn)
    scale = {"m.weight_scale_inv": torch.ones(1, 1)}
    save_file({"m.weight": weight, **scale}, model / "model.safetensors")
    config = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    (model / "config.json").write_text(json.dumps(config))
    save_file({"m.weight/gram": torch.eye(128)}, tmp_path / "calibration.safetensors")
    arguments = ["--calibration", str(tmp_path / "calibration.safetensors"), "--update", "reconstruct"]
    files = ["-o", str(tmp_path / "masks.safetensors"), "--weights-out", str(tmp_path / "output")]
    assert run(["solve", str(model), "--local", "-p", "2:4", "--layers", "m.weight", *arguments, *files]) == 2
    assert "8-bit floats" in capsys.readouterr().err
    assert not (tmp_path / "output").exists()
