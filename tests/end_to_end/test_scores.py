"""Scores that data makes, through client, service and worker: the library's masks."""

import numpy as np
import pytest
import torch

import masksmith as ms
from masksmith_client import JobFailedError
from masksmith_client.cli.app import run

NAME = "encoder.layer.0.attention.output.dense.weight"


@pytest.fixture(scope="module")
def found(layers):
    """A calibration of one real layer, by inputs of very different sizes."""
    linear = torch.nn.Linear(384, 384, bias=False)
    linear.weight.data = torch.from_numpy(layers[NAME])
    rng = np.random.default_rng(1)
    inputs = torch.from_numpy((rng.standard_normal((600, 384)) * rng.uniform(0.1, 3, 384)).astype(np.float32))
    gathered = ms.calibrate(
        torch.nn.Sequential(linear), [inputs], gather=("norms", "gram", "activations", "gradients"),
        loss=lambda model, batch: model(batch).square().mean(), max_samples=32,
    )  # fmt: skip
    return ms.Calibration({NAME: gathered["0.weight"]})


@pytest.mark.parametrize("scores", ["wanda", "ria", "sparsegpt", "taylor", "sipp", "pfp"])
def test_every_score_gives_the_librarys_mask(client, layers, found, scores):
    masks = client.solve(layers, "transposable 8:16", scores=scores, calibration=found)
    assert list(masks) == [NAME]
    assert {skipped.name for skipped in masks.job.skipped} == set(layers) - {NAME}
    expected = ms.solve(found.score(scores, NAME, layers[NAME]), "transposable 8:16")
    assert masks.job.report[NAME].objective == pytest.approx(expected.objective, rel=1e-6)
    assert masks.job.report[NAME].status == "optimal"
    assert masks.job.document.scores == scores
    differ = masks[NAME] != expected.mask
    assert differ.mean() < (0.5 if scores == "pfp" else 1e-3)
    plain = client.solve({NAME: layers[NAME]}, "transposable 8:16")
    assert (masks[NAME] != plain[NAME]).mean() > 0.01


def test_scores_may_lie_beside_the_weights(client, layers):
    scores = np.random.default_rng(4).random(layers[NAME].shape)
    masks = client.solve({NAME: layers[NAME]}, "2:4", scores="given", calibration={NAME: scores})
    assert (masks[NAME] == ms.solve(scores, "2:4").mask).all()


def test_a_statistic_that_holds_nan_fails_its_tensor_alone(client, layers):
    bad = np.ones(384)
    bad[7] = np.nan
    other = "encoder.layer.0.attention.self.query.weight"
    with pytest.raises(JobFailedError) as caught:
        client.solve(layers, "2:4", scores="wanda", calibration={NAME: bad, other: np.ones(384)})
    report = caught.value.job.report
    assert report[NAME].error.code == "invalid_calibration"
    assert "norms holds nan at [7]" in report[NAME].error.message
    assert (caught.value.job.masks()[other] == ms.solve(ms.magnitude(layers[other]), "2:4").mask).all()


def test_the_command_line_scores_by_a_file(stack, model_path, layers, found, tmp_path, capsys):
    stats, remote, local = (tmp_path / f"{name}.safetensors" for name in ("stats", "remote", "local"))
    found.save(stats)
    words = ["solve", str(model_path), "-p", "2:4", "--scores", "ria power=0.7", "--calibration", str(stats)]
    assert run([*words, "-o", str(remote), "--url", stack.url]) == 0
    assert "1 tensor(s), 2:4" in capsys.readouterr().out
    assert run([*words, "-o", str(local), "--local"]) == 0
    assert remote.read_bytes() == local.read_bytes()
