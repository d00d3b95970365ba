"""Files that changed behind prune's back: inputs between two runs, and outputs after the last."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from safetensors.torch import load_file, save_file as save_torch

from masksmith_client import InputError, Masks
from masksmith_client.checkpoints import prune
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.other_files import model_files, other_files
from masksmith_client.checkpoints.output_folder import check_output_folder, state_of_files
from masksmith_client.cli import local_prune
from masksmith_client.cli.app import run
from masksmith_client.results.apply import apply_masks

Saved = Callable[[str], Path]
Capture = pytest.CaptureFixture[str]


def command(model: Path, output: Path) -> list[str]:
    return ["prune", str(model), "-p", "2:4", "-o", str(output), "--local", "--threads", "1"]


def flip_last_bit(file: Path) -> None:
    """Change a byte and keep size and time of change."""
    state, data = file.stat(), file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.fixture
def model(saved: Saved, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved("llama"), tmp_path / "model"))


def interrupt(model: Path, output: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    solve, count = local_prune._solve, iter(range(100))

    def stopping(*arguments):
        if next(count) == after:
            raise KeyboardInterrupt
        return solve(*arguments)

    with monkeypatch.context() as context:
        context.setattr(local_prune, "_solve", stopping)
        assert run(command(model, output)) == 130


@pytest.mark.parametrize("finished", [False, True], ids=["the file that was begun", "a finished file"])
def test_an_input_that_changed_under_the_same_size_and_time_is_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, finished: bool
) -> None:
    output = tmp_path / "out"
    interrupt(model, output, monkeypatch, 9)
    done = {path.name for path in output.glob("model*.safetensors")}
    begun = next(path.name[1:].removesuffix(".part") for path in output.glob(".model*.part"))
    assert done
    name = min(done) if finished else begun
    if finished:
        flip_last_bit(model / name)
    else:
        first = bytearray((model / name).read_bytes())
        state = (model / name).stat()
        first[8 + int.from_bytes(first[:8], "little")] ^= 1
        (model / name).write_bytes(first)
        os.utime(model / name, ns=(state.st_atime_ns, state.st_mtime_ns))
    capsys.readouterr()
    assert run(command(model, output)) == 2
    error = capsys.readouterr().err
    assert f"{model / name} has changed since" in error.replace("\n", " ")


def test_a_finished_file_that_changed_is_named_and_kept(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    output = tmp_path / "out"
    interrupt(model, output, monkeypatch, 9)
    file = min(output.glob("model*.safetensors"))
    flip_last_bit(file)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    capsys.readouterr()
    assert run(command(model, output)) == 2
    assert f"{file} is not as prune wrote it; restore it" in capsys.readouterr().err.replace("\n", " ")
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    flip_last_bit(file)
    assert run(command(model, output)) == 0


def test_a_finished_masks_file_that_changed_is_named_and_kept(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def fail(*arguments: object) -> None:
        raise KeyboardInterrupt

    output = tmp_path / "out"
    with monkeypatch.context() as context:
        context.setattr(prune, "write_record", fail)
        assert run(command(model, output)) == 130
    masks = output / "masks.safetensors"
    flip_last_bit(masks)
    changed = masks.read_bytes()
    assert run(command(model, output)) == 2
    assert f"{masks} is not as prune wrote it" in capsys.readouterr().err.replace("\n", " ")
    assert masks.read_bytes() == changed


@pytest.mark.parametrize("change", ["shard", "masks", "gone", "config", "input"])
def test_a_finished_output_is_looked_at_again(model: Path, tmp_path: Path, capsys: Capture, change: str) -> None:
    output = tmp_path / "out"
    assert run(command(model, output)) == 0
    assert run(command(model, output)) == 0
    shard = min(output.glob("model*.safetensors"))
    changed = {"masks": output / "masks.safetensors", "config": output / "config.json", "input": model / shard.name}
    path = changed.get(change, shard)
    if change in ("gone", "config"):
        path.unlink()
    else:
        flip_last_bit(path)
    capsys.readouterr()
    assert run(command(model, output)) == 2
    assert str(path) in capsys.readouterr().err.replace("\n", "")


def test_verify_says_that_a_dense_tensor_has_changed(model: Path, tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / "out"
    assert run(command(model, output)) == 0
    capsys.readouterr()
    assert run(["verify", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == []
    shard = next(path for path in output.glob("model*.safetensors") if "model.embed_tokens.weight" in load_file(path))
    tensors = load_file(shard)
    tensors["model.embed_tokens.weight"].zero_()
    save_torch(tensors, shard, {"format": "pt"})
    assert run(["verify", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == [f"{shard} is not as prune wrote it"]


def test_verify_says_that_a_copied_file_is_missing(model: Path, tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / "out"
    assert run(command(model, output)) == 0
    (output / "config.json").unlink()
    capsys.readouterr()
    assert run(["verify", str(output), "--json"]) == 0
    expected = f"{output / 'config.json'} is missing: prune copied it from the model's directory"
    assert json.loads(capsys.readouterr().out)["notes"] == [expected]


@pytest.mark.parametrize("name", ["masks.safetensors", ".hidden.safetensors"])
def test_names_that_outputs_need_are_refused(tmp_path: Path, capsys: Capture, name: str) -> None:
    save_file({"layers.0.w.weight": np.ones((8, 8), np.float32)}, tmp_path / name)
    for _ in range(2):
        assert run(command(tmp_path / name, tmp_path / "out")) == 2
        assert name in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["masksmith.json", ".masksmith-journal.jsonl", "weights"])
def test_an_index_names_safetensors_files(tmp_path: Path, capsys: Capture, name: str) -> None:
    save_file({"layers.0.w.weight": np.ones((8, 8), np.float32)}, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"layers.0.w.weight": name}}))
    assert run(command(index, tmp_path / "out")) == 2
    assert "not a .safetensors file" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("target", ["model.safetensors", "config.json", "calibration.safetensors", "link.safetensors"])
def test_solve_overwrites_no_input(tmp_path: Path, capsys: Capture, target: str) -> None:
    model = tmp_path / "model"
    model.mkdir()
    save_file({"layers.0.w.weight": np.ones((8, 8), np.float32)}, model / "model.safetensors")
    save_file({"layers.0.w.weight": np.ones((8, 8), np.float32)}, tmp_path / "calibration.safetensors")
    (model / "config.json").write_text("{}")
    (tmp_path / "link.safetensors").symlink_to(model / "model.safetensors")
    output = model / target if (model / target).exists() else tmp_path / target
    before = output.read_bytes()
    options = ["--scores", "given", "--calibration", str(tmp_path / "calibration.safetensors"), "--local"]
    assert run(["solve", str(model), "-p", "2:4", "-o", str(output), *options]) == 2
    assert "is an input" in capsys.readouterr().err.replace("\n", " ")
    assert output.read_bytes() == before
    for _ in range(2):
        assert run(["solve", str(model), "-p", "2:4", "-o", str(model / "masks.safetensors"), *options]) == 0


@pytest.mark.parametrize(
    ("files", "new"),
    [
        (["m-1.safetensors", "model.safetensors.index.json"], "model.safetensors"),
        (["m-1.safetensors"], "pruned.safetensors"),
    ],
)
def test_no_output_counts_as_weights_of_the_model(tmp_path: Path, capsys: Capture, files: list[str], new: str) -> None:
    """`from_pretrained` reads `model.safetensors` in place of the files of an index."""
    model, masks = tmp_path / "model", tmp_path / "masks.safetensors"
    model.mkdir()
    save_file({"w": np.ones((8, 8), np.float32)}, model / files[0])
    if len(files) == 2:
        (model / files[1]).write_text(json.dumps({"weight_map": {"w": files[0]}}))
    save_file({"w": np.eye(8) > 0}, masks)
    for path in [model] if len(files) == 1 else [model, model / files[1]]:
        assert run(["solve", str(path), "-p", "2:4", "-o", str(model / new), "--local"]) == 2
        assert run(["apply", str(masks), str(path), "-o", str(model / new)]) == 2
        assert capsys.readouterr().err.count("would count as weights of the model") == 2
    assert {path.name for path in model.iterdir()} == set(files)
    for output in (model / "masks.safetensors", model / "masks.out", tmp_path / new):
        assert run(["solve", str(model), "-p", "2:4", "-o", str(output), "--local"]) == 0
    assert run(["apply", str(masks), str(model / files[0]), "-o", str(model / "x.safetensors")]) == 0


def test_a_file_of_a_download_cache_is_not_replaced_through_a_link(tmp_path: Path, capsys: Capture) -> None:
    """Other revisions have links to the same file."""
    blob, masks = tmp_path / "blobs" / "0a1b", tmp_path / "masks.safetensors"
    snapshot = tmp_path / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    blob.parent.mkdir()
    save_file({"w": np.ones((8, 8), np.float32)}, blob)
    (snapshot / "model.safetensors").symlink_to("../../blobs/0a1b")
    save_file({"w": np.eye(8) > 0}, masks)
    before = blob.read_bytes()
    output = snapshot / "model.safetensors"
    assert run(["apply", str(masks), str(snapshot), "-o", str(output)]) == 2
    assert f"{output} is a link to {blob}, a file of a download cache" in capsys.readouterr().err
    with pytest.raises(InputError, match="a file of a download cache"):
        apply_masks(Masks.open(masks), snapshot, output)
    assert blob.read_bytes() == before
    (tmp_path / "link").symlink_to(masks)
    assert run(["solve", str(snapshot), "-p", "2:4", "-o", str(tmp_path / "link"), "--local"]) == 0


def test_bench_overwrites_no_config(tmp_path: Path, capsys: Capture) -> None:
    save_file({"layers.0.w.weight": np.ones((8, 8), np.float32)}, tmp_path / "model.safetensors")
    config = tmp_path / "config.json"
    config.write_text("{}")
    assert run(["bench", "--model", str(tmp_path), "--patterns", "2:4", "--local", "-o", str(config)]) == 2
    assert "is an input" in capsys.readouterr().err.replace("\n", " ")
    assert config.read_text() == "{}"


def test_apply_overwrites_no_masks(tmp_path: Path, capsys: Capture) -> None:
    masks, model = tmp_path / "masks.safetensors", tmp_path / "model.safetensors"
    save_file({"w": np.ones((8, 8), np.bool_)}, masks)
    save_file({"w": np.ones((8, 8), np.float32)}, model)
    before = masks.read_bytes()
    assert run(["apply", str(masks), str(model), "-o", str(masks)]) == 2
    assert "is an input" in capsys.readouterr().err
    assert masks.read_bytes() == before
    assert run(["apply", str(masks), str(model), "-o", str(model)]) == 0


def test_modules_of_sentence_transformers_are_copied_and_outputs_and_links_are_not(tmp_path: Path) -> None:
    model, output = tmp_path / "model", tmp_path / "out"
    for folder in ("2_Dense", "earlier", "sub"):
        (model / folder).mkdir(parents=True)
    save_file({"encoder.layer.0.w.weight": np.ones((8, 8), np.float32)}, model / "model.safetensors")
    save_file({"linear.weight": np.ones((8, 8), np.float32)}, model / "2_Dense" / "model.safetensors")
    save_file({"linear.weight": np.ones((8, 8), np.float32)}, model / "sub" / "model.safetensors")
    (model / "2_Dense" / "config.json").write_text("{}")
    (model / "earlier" / "masksmith.json").write_text("{}")
    (model / "earlier" / "config.json").write_text("{}")
    (model / "link").symlink_to(model / "2_Dense")
    (model / "modules.json").write_text(json.dumps([{"path": ""}, {"path": "2_Dense"}]))
    assert run(command(model, output)) == 0
    copied = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    assert copied == {"model.safetensors", "masks.safetensors", "masksmith.json", "modules.json"} | {
        "2_Dense/model.safetensors", "2_Dense/config.json",
    }  # fmt: skip
    record = json.loads((output / "masksmith.json").read_text())
    assert set(record["not_copied"]) == {"earlier", "link", "sub/model.safetensors"}


@pytest.mark.parametrize(
    ("listed", "is_copied"),
    [
        ("./2_Dense", True),
        ("2_Dense/", True),
        ("2_Dense//", True),
        ("sub/../2_Dense", True),
        ("2_Dense/sub", False),
        ("../2_Dense", False),
        ("/2_Dense", False),
        ("2_dense", False),
    ],
)
def test_paths_of_modules_are_compared_as_paths(tmp_path: Path, listed: str, is_copied: bool) -> None:
    (tmp_path / "2_Dense").mkdir()
    weights = {"linear.weight": np.ones((8, 8), np.float32)}
    for file in ("model.safetensors", "2_Dense/model.safetensors"):
        save_file(weights, tmp_path / file)
    (tmp_path / "modules.json").write_text(json.dumps([{"path": ""}, {"path": listed}]))
    files = other_files(Checkpoint.open(tmp_path), None)
    module = [Path("2_Dense/model.safetensors")]
    assert (module == files.not_copied) is not is_copied
    assert (module[0] in files.copied) is is_copied


@pytest.mark.parametrize("listed", ["", ".", "./", "sub/.."])
def test_the_root_of_a_model_is_no_further_module(tmp_path: Path, listed: str) -> None:
    for file in ("model.safetensors", "model-old.gguf"):
        save_file({"linear.weight": np.ones((8, 8), np.float32)}, tmp_path / file)
    (tmp_path / "modules.json").write_text(json.dumps([{"path": listed}]))
    assert other_files(Checkpoint.open(tmp_path), None).not_copied == [Path("model-old.gguf")]


@pytest.mark.parametrize("modules", [{"a": 1}, 3, [3], [{"path": 3}], [{"name": "0"}], ["2_Dense"]])
def test_malformed_modules_are_none(tmp_path: Path, modules: object) -> None:
    (tmp_path / "2_Dense").mkdir()
    for file in ("model.safetensors", "2_Dense/model.safetensors"):
        save_file({"linear.weight": np.ones((8, 8), np.float32)}, tmp_path / file)
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    assert other_files(Checkpoint.open(tmp_path), None).not_copied == [Path("2_Dense/model.safetensors")]


def test_links_to_nothing_are_refused_and_pipes_are_listed(tmp_path: Path) -> None:
    model, output = tmp_path / "model", tmp_path / "out"
    model.mkdir()
    save_file({"encoder.layer.0.w.weight": np.ones((8, 8), np.float32)}, model / "model.safetensors")
    os.mkfifo(model / "pipe")
    (model / "pytorch_model.bin").symlink_to("nothing")
    checkpoint = Checkpoint.open(model)
    check_output_folder(output, checkpoint)
    assert {path.name for path in other_files(checkpoint, output).not_copied} == {"pipe", "pytorch_model.bin"}
    (model / "tokenizer.json").symlink_to("../blobs/gone")
    with pytest.raises(InputError, match=r"tokenizer.json is a link to \.\./blobs/gone, which does not exist"):
        check_output_folder(output, checkpoint)


@pytest.mark.parametrize(
    ("name", "reason"), [(".model.safetensors", "is hidden"), ("masks.safetensors", "name that masksmith uses")]
)
def test_names_that_files_of_weights_must_not_have_are_refused(tmp_path: Path, name: str, reason: str) -> None:
    save_file({"encoder.layer.0.w.weight": np.ones((8, 8), np.float32)}, tmp_path / name)
    with pytest.raises(InputError, match=rf"/{re.escape(name)} .*{reason}.*; rename it$"):
        check_output_folder(tmp_path / "out", Checkpoint.open(tmp_path / name))


def test_a_pattern_for_tensors_that_stay_dense_is_refused(saved: Saved, tmp_path: Path, capsys: Capture) -> None:
    model, output = saved("llama"), tmp_path / "out"
    for selector in ("lm_head.weight", "*norm*"):
        assert run([*command(model, output), "-p", f"{selector}=1:4"]) == 2
        assert "stays dense" in capsys.readouterr().err.replace("\n", " ")
    assert run([*command(model, output), "-p", "self_attn=1:4", "--layers", "*.mlp.*"]) == 0
    head = ["--layers", "lm_head.weight", "--layers", "*.mlp.*", "-p", "lm_head.weight=1:4"]
    assert run([*command(model, tmp_path / "other"), *head]) == 0


def test_all_files_of_a_model_are_known_whatever_their_folder(model: Path) -> None:
    (model / "none").mkdir()
    (model / "none" / "notes.txt").write_text("text")
    assert model / "none" / "notes.txt" in model_files(Checkpoint.open(model))


def test_a_file_that_is_replaced_after_its_header_was_read_is_named(tmp_path: Path) -> None:
    save_file({"a.weight": np.ones((4, 4), np.float32)}, tmp_path / "model.safetensors")
    checkpoint = Checkpoint.open(tmp_path)
    save_file({"a.weight": np.ones((8, 4), np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"model.safetensors has changed since the command began; repeat it"):
        state_of_files(checkpoint)
