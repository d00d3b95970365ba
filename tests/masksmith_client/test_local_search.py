"""A local search (`solve --local`) keeps to its time limit as a whole."""

import torch
from safetensors.torch import save_file as save_torch

import masksmith
from masksmith_client import Masks
from masksmith_client.cli import local
from masksmith_client.cli.app import run


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
