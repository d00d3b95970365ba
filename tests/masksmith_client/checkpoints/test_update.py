"""`masksmith prune` with statistics: scores that need data, updated weights, and what is refused."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

import masksmith as ms
from masksmith.patterns import TensorPatterns
from masksmith_client import Masks
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.choice import ChoiceOptions, choose
from masksmith_client.cli import local_prune
from masksmith_client.cli.app import run
from masksmith_wire.output_names import JOURNAL_NAME

from .conftest import MODELS
from .test_prune import forward, tensors

Saved = Callable[[str], Path]
Statistics = dict[str, npt.NDArray[np.float64]]

# Stacked tensors and the order of their axes, written by hand from the models' sources; others are [out, in].
IN_OUT = {"gpt2": "c_", "gpt_oss": "experts"}


def command(model: Path, output: Path, *options: str) -> list[str]:
    return ["prune", str(model), "-p", "2:4", "-o", str(output), "--local", "--threads", "1", *options]


def is_in_out(model: str, tensor: str) -> bool:
    return model in IN_OUT and IN_OUT[model] in tensor


def statistics(model: str, folder: Path) -> Statistics:
    """Norms and Gram matrices of correlated inputs for all tensors that are masked."""
    rng = np.random.default_rng(0)
    made: Statistics = {}
    for tensor in choose(Checkpoint.open(folder), ChoiceOptions(TensorPatterns.of("2:4"))).masked_tensors:
        stack, inputs = tensor.shape[:-2], tensor.shape[-2 if is_in_out(model, tensor.name) else -1]
        x = rng.standard_normal((*stack, 99, inputs)) @ (rng.standard_normal((inputs, inputs)) / 4 + np.eye(inputs))
        made[f"{tensor.name}/gram"] = x.swapaxes(-1, -2) @ x
        made[f"{tensor.name}/norms"] = np.linalg.norm(x, axis=-2)
    return made


@pytest.fixture
def calibrated(saved: Saved, tmp_path: Path) -> Callable[[str], tuple[Path, str]]:
    def make(model: str) -> tuple[Path, str]:
        path = tmp_path / f"{model}-statistics.safetensors"
        save_file(statistics(model, saved(model)), path)
        return saved(model), str(path)

    return make


def record_of(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "masksmith.json").read_text())
    return record


def output_error(change: torch.Tensor, gram: npt.NDArray[np.float64], *, in_out: bool) -> float:
    """Squared error of the layer's output."""
    matrices = change.double().numpy()
    matrices = matrices.swapaxes(-1, -2) if in_out else matrices
    return float(np.einsum("...oi,...ij,...oj->...", matrices, gram, matrices).sum())


@pytest.mark.parametrize(
    ("model", "update"),
    [
        ("llama", "reconstruct damping=0.001"),
        ("gpt2", "reconstruct"),
        ("mixtral", "reconstruct"),
        ("gpt_oss", "reconstruct"),
        ("gpt_oss", "admm max_rounds=5"),
        ("gpt2", "admm max_rounds=5"),
    ],
)
def test_updated_weights_have_a_smaller_error_and_zeros_where_the_mask_drops(
    calibrated: Callable[[str], tuple[Path, str]],
    tmp_path: Path,
    model: str,
    update: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, calibration = calibrated(model)
    output, grams = tmp_path / "out", load_file(calibration)
    options = ["--scores", "wanda", "--update", update, "--calibration", calibration]
    assert run(command(source, output, *options)) == 0
    assert "output error" in capsys.readouterr().out
    before, after, masks = tensors(source), tensors(output), Masks.open(output / "masks.safetensors")
    record = record_of(output)
    assert (record["scores"], record["update"]) == ("wanda", update)
    names = {tensor["name"]: tensor for tensor in record["tensors"]}
    assert set(masks) == {name.removesuffix("/gram") for name in grams if name.endswith("/gram")}
    for name, weight in after.items():
        assert weight.dtype == before[name].dtype
        if name not in masks:
            assert torch.equal(weight.view(torch.uint8), before[name].view(torch.uint8))
            assert "update" not in names[name]
            continue
        mask, in_out = torch.from_numpy(masks[name]), is_in_out(model, name)
        assert torch.equal(weight != 0, mask)
        gram, old = grams[f"{name}/gram"], before[name].double()
        error, masked_error = (
            output_error(new - old, gram, in_out=in_out) for new in (weight.double(), torch.where(mask, old, 0.0))
        )
        assert error < masked_error * 0.9
        noted = names[name]["update"]
        assert noted["method"] == update
        assert noted["error"] == pytest.approx(error, rel=1e-6)
        assert noted["masked_error"] == pytest.approx(masked_error, rel=1e-6)
    _, logits = forward(output, model)
    assert torch.isfinite(logits).all()


def test_scores_from_data_without_an_update_are_those_of_solve(
    calibrated: Callable[[str], tuple[Path, str]], tmp_path: Path
) -> None:
    source, calibration = calibrated("gpt2")
    options = ["--scores", "sparsegpt damping=0.1", "--calibration", calibration]
    assert run(command(source, tmp_path / "out", *options)) == 0
    masks = tmp_path / "masks.safetensors"
    assert run(["solve", str(source), "-p", "2:4", "-o", str(masks), "--local", *options]) == 0
    one, other = Masks.open(masks), Masks.open(tmp_path / "out" / "masks.safetensors")
    assert set(one) == set(other)
    assert all(np.array_equal(one[name], other[name]) for name in one)
    before, after = tensors(source), tensors(tmp_path / "out")
    assert all(torch.equal(after[name], before[name] * torch.from_numpy(one[name])) for name in one)
    assert record_of(tmp_path / "out")["update"] is None


def test_the_calibration_of_a_model_of_transformers_fits_its_directory(saved: Saved, tmp_path: Path) -> None:
    source, calibration = saved("llama-tied"), tmp_path / "statistics.safetensors"
    model = getattr(transformers, MODELS["llama-tied"][0]).from_pretrained(source)
    batches = [{"input_ids": torch.randint(0, 64, (4, 32))} for _ in range(3)]
    # With the head, which the checkpoint does not store.
    ms.calibrate(model, batches, gather=("norms", "gram"), layers=["*_proj", "lm_head"]).save(calibration)
    assert any(name.startswith("lm_head") for name in load_file(calibration))
    options = ["--scores", "wanda", "--update", "reconstruct", "--calibration", str(calibration)]
    assert run(command(source, tmp_path / "out", *options)) == 0
    updates = [tensor["update"] for tensor in record_of(tmp_path / "out")["tensors"] if tensor["masked"]]
    assert len(updates) == 14
    assert all(update["error"] < update["masked_error"] for update in updates)


def test_tied_tensors_and_repeated_ones_get_the_same_values(tmp_path: Path) -> None:
    """Copies in the same file, in a later file and in an earlier one than the index names."""
    rng = np.random.default_rng(0)
    matrix, other = (rng.standard_normal((8, 16)).astype(np.float32) for _ in range(2))
    names = ["a.weight", "b.weight", "c.weight", "d.weight"]
    source, output = tmp_path / "model", tmp_path / "out"
    source.mkdir()
    files = ["model-1.safetensors", "model-2.safetensors"]
    save_file({names[0]: matrix, names[1]: matrix, names[3]: other * 0 + 1}, source / files[0])
    save_file({names[2]: matrix, names[3]: other}, source / files[1])
    weight_map = dict(zip(names, [files[0], files[0], files[1], files[1]], strict=True))
    (source / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    x = rng.standard_normal((50, 16)) @ np.tri(16)
    # The first tensor has the statistics of a name that it is tied to.
    save_file({f"{name}/gram": x.T @ x for name in names[1:]}, tmp_path / "statistics")
    assert run(command(source, output, "--update", "reconstruct", "--calibration", str(tmp_path / "statistics"))) == 0
    first, second = (load_file(output / file) for file in files)
    assert np.array_equal(first[names[0]], first[names[1]])
    assert np.array_equal(first[names[0]], second[names[2]])
    assert np.array_equal(first[names[3]], second[names[3]])
    kept = first[names[0]] != 0
    assert kept.sum() == 64
    assert not np.array_equal(first[names[0]][kept], matrix[kept])
    # Tied tensors with different statistics are refused.
    save_file({f"{name}/gram": x.T @ x * (1 + (name == names[2])) for name in names}, tmp_path / "statistics")
    assert (
        run(command(source, tmp_path / "2", "--update", "reconstruct", "--calibration", str(tmp_path / "statistics")))
        == 2
    )


def spoiled(made: Statistics, kind: str, name: str) -> Statistics:
    if kind == "missing":
        del made[f"{name}/gram"]
    elif kind == "shape":
        made[f"{name}/gram"] = made[f"{name}/gram"][1:]
    elif kind == "nan":
        made[f"{name}/gram"][3, 4] = np.nan
    elif kind == "norms":
        made[f"{name}/norms"][3] = np.nan
    elif kind == "unknown":
        made["model.layers.7.mlp.up_proj.weight/gram"] = np.eye(3)
    return made


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "is not calibrated.*--exclude"),
        ("shape", "gram of shape"),
        ("nan", r"gram' is nan at \[3, 4\]"),
        ("norms", r"norms' is nan at \[3\]"),
        ("unknown", "layers.7.*does not have"),
    ],
)
def test_statistics_that_do_not_fit_are_refused_by_name(
    saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, message: str
) -> None:
    name = "model.layers.7.mlp" if kind == "unknown" else "model.layers.0.mlp.down_proj.weight"
    save_file(spoiled(statistics("llama", saved("llama")), kind, name), tmp_path / "statistics")
    options = ["--scores", "wanda", "--update", "reconstruct", "--calibration", str(tmp_path / "statistics")]
    assert run(command(saved("llama"), tmp_path / "out", *options)) == 2
    error = capsys.readouterr().err
    assert name in error
    assert error.count(name) <= 2
    assert re.search(message, error)
    assert not (tmp_path / "out").exists()
    if kind == "missing":
        assert run(command(saved("llama"), tmp_path / "out", *options, "--exclude", name)) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scores", "wanda"], "need a calibration"),
        (["--scores", "given"], "need a calibration"),
        (["--update", "reconstruct"], "needs a calibration"),
        (["--update", "polish"], "polish"),
        (["--update", "reconstruct damping=x"], "damping"),
        (["--calibration", "x.safetensors"], "leave the calibration out"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert run(command(saved("llama"), tmp_path / "out", *options)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("dtype", "known"), [(torch.float8_e4m3fn, "F8_E4M3"), (torch.int8, "I8")])
def test_an_update_of_fp8_or_integers_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], dtype: torch.dtype, known: str
) -> None:
    name = "layers.0.w.weight"
    save_torch({name: (torch.randn(8, 8) * 9).to(dtype)}, tmp_path / "model.safetensors")
    save_file({f"{name}/gram": np.eye(8)}, tmp_path / "statistics")
    options = ["--layers", name, "--update", "reconstruct", "--calibration", str(tmp_path / "statistics")]
    assert run(command(tmp_path / "model.safetensors", tmp_path / "out", *options)) == 2
    assert re.search(rf"'{name}'.*dtype {known}", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_an_update_without_torch_is_refused_at_once(
    saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ms.__getattr__

    def missing(name: str) -> Any:
        if name != "reconstruct":
            return other(name)
        raise ms.MissingExtraError("reconstruct", "torch", "torch")

    monkeypatch.delitem(vars(ms), "reconstruct", raising=False)
    monkeypatch.setattr(ms, "__getattr__", missing)
    options = ["--update", "reconstruct", "--calibration", str(tmp_path / "nothing")]
    assert run(command(saved("llama"), tmp_path / "out", *options)) == 2
    assert "masksmith[torch]" in capsys.readouterr().err


def interrupted(arguments: list[str], monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    solve, count = local_prune._solve, 0

    def stopping(*given: Any) -> Any:
        nonlocal count
        count += 1
        if count > after:
            raise KeyboardInterrupt
        return solve(*given)

    with monkeypatch.context() as context:
        context.setattr(local_prune, "_solve", stopping)
        assert run(arguments) == 130


def files(folder: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


@pytest.mark.parametrize("damage", ["nothing", "shard", "renamed"])
def test_an_interrupted_run_goes_on_with_the_same_calibration_alone(
    calibrated: Callable[[str], tuple[Path, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: str,
) -> None:
    source, calibration = calibrated("llama")
    options = ["--scores", "wanda", "--update", "reconstruct", "--calibration", calibration]
    assert run(command(source, tmp_path / "whole", *options)) == 0
    output = tmp_path / "out"
    interrupted(command(source, output, *options), monkeypatch, 8)
    copy = tmp_path / "other-statistics"
    save_file({name: value * 2 for name, value in load_file(calibration).items()}, copy)
    capsys.readouterr()
    assert run(command(source, output, *options[:-1], str(copy))) == 2
    assert "calibration" in capsys.readouterr().err
    assert run(command(source, output, "--scores", "wanda", "--calibration", calibration)) == 2
    (shard,) = output.glob(".model*.part")
    if damage == "shard":
        # Updated weights that are lost cannot be made from the masks alone.
        shard.write_bytes(shard.read_bytes()[:-40] + bytes(40))
    elif damage == "renamed":
        # As by a run that is killed after it has renamed a file, and before the file is in the journal.
        shard.rename(output / shard.name.removeprefix(".").removesuffix(".part"))
    shutil.copy(calibration, copy)
    solve, names = local_prune._solve, []

    def counting(masksmith: Any, tensor: Any, *rest: Any) -> Any:
        names.append(tensor.chosen.name)
        return solve(masksmith, tensor, *rest)

    monkeypatch.setattr(local_prune, "_solve", counting)
    assert run(command(source, output, *options[:-1], str(copy))) == 0
    assert files(output) == files(tmp_path / "whole")
    assert len(names) == (14 if damage == "shard" else 6)
    assert not (output / JOURNAL_NAME).exists()
