"""Jobs that update weights, from the library, the command line and plain HTTP, on a real layer."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import torch

import masksmith as ms
from masksmith_client import AsyncClient, JobFailedError, NotFound

MASKSMITH = Path(sys.executable).with_name("masksmith")

NAME = "encoder.layer.1.attention.self.query.weight"


@pytest.fixture(scope="module")
def gram():
    rng = np.random.default_rng(0)
    seen = rng.standard_normal((2000, 384)) @ (rng.standard_normal((384, 384)) * np.exp(-np.arange(384) / 99)[:, None])
    return seen.T @ seen


@pytest.fixture(scope="module")
def weight(model_path):
    with safetensors.safe_open(model_path, "pt") as file:
        return file.get_tensor(NAME)


def test_masks_and_weights_come_back_in_the_weights_own_kind(client, weight, gram):
    half = weight.to(torch.bfloat16)
    job = client.jobs.submit({NAME: half}, "transposable 8:16", update="reconstruct", calibration={NAME: gram}).wait(
        240
    )
    updated, mask = job.weights()[NAME], job.masks()[NAME]
    assert (updated.dtype, updated.shape) == (torch.bfloat16, half.shape)
    assert not updated[~mask].any()
    report = job.report[NAME].update
    local = ms.reconstruct(half, mask, gram)
    assert report.error == pytest.approx(local.error, rel=1e-6)
    assert report.masked_error > 1.3 * report.error
    assert torch.equal(updated, local.weight)


def test_admm_brings_its_own_mask(client, weight, gram, tmp_path):
    job = client.jobs.submit({NAME: weight.numpy()}, "2:4", update="admm", calibration={NAME: gram}).wait(240)
    weights = job.weights()
    path = weights.save(tmp_path / "pruned.safetensors")
    np.testing.assert_array_equal(safetensors.numpy.load_file(path)[NAME], weights[NAME])
    assert ms.verify(weights[NAME] != 0, "2:4")
    np.testing.assert_array_equal(weights[NAME] != 0, job.masks()[NAME])
    report = job.report[NAME]
    assert (report.gap, report.status) == (0.0, "optimal")
    assert report.update.solves > 2
    rebuilt = ms.reconstruct(weight, ms.solve(ms.magnitude(weight), "2:4").mask, gram)
    assert report.update.error < rebuilt.error


def test_the_command_line_with_and_without_a_service(stack, weight, gram, tmp_path):
    model, stats = tmp_path / "model.safetensors", tmp_path / "stats.safetensors"
    safetensors.numpy.save_file({NAME: weight.numpy(), "bias": np.ones(4, np.float32)}, model)
    safetensors.numpy.save_file({f"{NAME}/gram": gram}, stats)
    found = []
    for where in (["--url", stack.url], ["--local"]):
        masks, pruned = tmp_path / "masks", tmp_path / "pruned"
        command = [
            MASKSMITH, "solve", model, "-p", "2:4", "-o", masks, "--update", "reconstruct damping=0.02",
            "--calibration", stats, "--weights-out", pruned, "--json", *where,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, env=stack.environment, check=False)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert report["weights"] == str(pruned)
        found.append((safetensors.numpy.load_file(pruned)[NAME], report["tensors"][0]["update"]["error"]))
        masks.unlink()
        pruned.unlink()
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5, atol=1e-7)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-6)
    for wrong, message in (
        (["--update", "reconstruct"], "must be used together"),
        (["--weights-out", "x"], "must be used together"),
    ):
        command = [MASKSMITH, "solve", model, "-p", "2:4", "-o", tmp_path / "masks", "--local", *wrong]
        done = subprocess.run(command, capture_output=True, text=True, env=stack.environment, check=False)
        assert (done.returncode, message in done.stderr) == (2, True)


def test_one_bad_gram_matrix_spoils_its_own_layer_only(client, weight, gram):
    weights = {"good": weight, "bad": weight.clone()}
    job = client.jobs.submit(weights, "2:4", update="reconstruct", calibration={"good": gram, "bad": -gram})
    with pytest.raises(JobFailedError, match="bad"):
        job.wait(240)
    assert job.report["bad"].error.code == "invalid_calibration"
    assert list(job.weights()) == ["good"]


def test_the_asyncio_twin(stack, weight, gram):
    async def ask():
        async with AsyncClient(stack.url) as client:
            plain = await client.jobs.submit({NAME: weight}, "2:4")
            await plain.wait(240)
            with pytest.raises(NotFound, match="updates no weights"):
                await plain.weights()
            job = await client.jobs.submit({NAME: weight}, "2:4", update="reconstruct", calibration={NAME: gram})
            await job.wait(240)
            return await job.weights()

    assert ms.verify(asyncio.run(ask())[NAME] != 0, "2:4")
