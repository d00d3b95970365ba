"""A local search (`solve --local`): its time limit, previous masks, and weights that cannot be measured."""

import pytest
import torch
from safetensors.torch import save_file as save_torch

import masksmith
from masksmith_client import Masks
from masksmith_client.cli import local
from masksmith_client.cli.app import run


def test_a_previous_mask_of_another_shape_is_refused_before_any_work(tmp_path, monkeypatch, capsys):
    model, previous = tmp_path / "model.safetensors", tmp_path / "previous.safetensors"
    save_torch({"a": torch.ones(8, 8), "b": torch.ones(8, 8)}, model)
    save_torch({"a": torch.ones(8, 8, dtype=torch.bool), "b": torch.ones(4, 16, dtype=torch.bool)}, previous)
    monkeypatch.setattr(masksmith, "solve_many", lambda *arguments, **options: pytest.fail("solved"))
    command = ["solve", str(model), "-p", "2:4", "--local", "-o", str(tmp_path / "masks.safetensors")]
    assert run([*command, "--previous", str(previous)]) == 2
    message = f"'b' has shape [8, 8], its previous mask in {previous} has [4, 16]"
    assert message in capsys.readouterr().err


def test_a_weight_without_a_spectrum_costs_only_its_own_mask(tmp_path, capsys):
    model, scores, output = (tmp_path / f"{name}.safetensors" for name in ("model", "scores", "masks"))
    save_torch({"good": torch.randn(8, 8), "bad": torch.full((8, 8), torch.nan)}, model)
    save_torch({"good": torch.ones(8, 8), "bad": torch.ones(8, 8)}, scores)
    options = ["--local", "--spectrum", "--scores", "given", "--calibration", str(scores), "-o", str(output)]
    assert run(["solve", str(model), "-p", "2:4", *options]) == 1
    assert "NaN or infinity in a kept entry" in capsys.readouterr().err
    assert list(Masks.open(output)) == ["good"]


def test_a_time_limit_counts_from_the_start_of_the_search(tmp_path, monkeypatch):
    """Not from the start of each batch of weights that are solved together."""
    weights = {name: torch.randn(8, 8, generator=torch.Generator().manual_seed(0)) for name in "abc"}
    save_torch(weights, tmp_path / "model.safetensors")
    limits, solve_many = [], masksmith.solve_many

    def recorded(*arguments, **options):
        limits.append(options["time_limit_s"])
        return solve_many(*arguments, **options)

    monkeypatch.setattr(masksmith, "solve_many", recorded)
    monkeypatch.setattr(local, "BATCH_BYTES", 1)
    output = tmp_path / "masks.safetensors"
    command = ["solve", str(tmp_path / "model.safetensors"), "-p", "2:4", "--local", "-o", str(output)]
    assert run([*command, "--time-limit", "60"]) == 0
    assert 60 >= limits[0] > limits[1] > limits[2] > 0
    assert run([*command, "--time-limit", "1e-9"]) == 0  # It has passed before the second batch.
    assert set(Masks.open(output)) == {"a", "b", "c"}
