"""Scores that data makes, from the client's side: what travels, and what is refused before anything does."""

import numpy as np
import pytest
import safetensors.numpy
import torch

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.cli.app import run
from masksmith_client.results.masks import Masks
from masksmith_client.submission.prepare import prepare

RNG = np.random.default_rng(2)
WEIGHTS = {name: RNG.standard_normal((8, 16)).astype(np.float32) for name in ("0.weight", "1.weight")}
NORMS = np.arange(16.0)


def kinds(prepared):
    return {name: (statistic.kind, statistic.tensor.shape) for name, statistic in prepared.auxiliary.statistics.items()}


def test_a_calibration_in_memory_gives_each_weight_its_statistic():
    model = torch.nn.Sequential(torch.nn.Linear(16, 8))
    found = ms.calibrate(model, [torch.randn(5, 16)], gather=("norms", "gram"))
    submission = prepare(model, "2:4", scores="sparsegpt", calibration=found, layers="0.weight")
    assert kinds(submission) == {"0.weight": ("gram", (16, 16))}
    assert [tensor.name for tensor in submission.uploads] == ["0.weight", "0.weight/gram"]
    assert submission.total_bytes > 16 * 16 * 8


def test_a_mapping_may_hold_the_statistic_itself_and_a_file_all_of_them(tmp_path):
    path = tmp_path / "stats.safetensors"
    safetensors.numpy.save_file({f"{name}/norms": NORMS for name in WEIGHTS}, path)
    for calibration in (dict.fromkeys(WEIGHTS, NORMS), path, str(path)):
        submission = prepare(WEIGHTS, "2:4", scores="ria power=1", calibration=calibration)
        assert kinds(submission) == dict.fromkeys(WEIGHTS, ("norms", (16,)))
        assert str(submission.specification.scores) == "ria power=1"


def test_the_document_says_where_each_statistic_is():
    submission = prepare(WEIGHTS, "2:4", scores="given", calibration={name: abs(WEIGHTS[name]) for name in WEIGHTS})
    request = submission.request([letter * 64 for letter in "abcd"])
    assert [(tensor.digest[0], tensor.statistic.kind, tensor.statistic.digest[0]) for tensor in request.tensors] == [
        ("a", "scores", "c"),
        ("b", "scores", "d"),
    ]


def test_weights_without_a_statistic_are_skipped_unless_they_are_named():
    submission = prepare(WEIGHTS, "2:4", scores="wanda", calibration={"0.weight": NORMS})
    assert [weight.name for weight in submission.weights] == ["0.weight"]
    assert [skipped.name for skipped in submission.skipped] == ["1.weight"]
    with pytest.raises(InputError, match=r"'1\.weight' is not calibrated"):
        prepare(WEIGHTS, "2:4", scores="wanda", calibration={"0.weight": NORMS}, layers=["0.weight", "1.weight"])


@pytest.mark.parametrize(
    ("scores", "calibration", "message"),
    [
        ("wanda", None, "wanda scores need a calibration"),
        ("wanda", {"2.weight": NORMS}, r"layer '2\.weight', which the model does not have"),
        ("wanda", {"0.weight": NORMS[:5]}, r"'0\.weight': norms of shape \[5\]"),
        ("taylor", {"0.weight": NORMS}, r"expected \[8, 16\]"),
        ("wanda", {"0.weight": np.ones(16, np.int64)}, "dtype I64"),
        ("magnitude", {"0.weight": NORMS}, "leave the calibration out"),
        ("wanda", 5, "path or a mapping"),
        ("wandaa", None, "scores: 'wandaa' does not begin with one of the scores"),
        ("wanda", {}, "none of 2 weight"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_sent(scores, calibration, message):
    with pytest.raises(InputError, match=message):
        prepare(WEIGHTS, "2:4", scores=scores, calibration=calibration)


def test_local_solving_scores_as_the_library_does(tmp_path, capsys):
    model, stats, masks = (tmp_path / f"{name}.safetensors" for name in ("model", "stats", "masks"))
    safetensors.numpy.save_file(WEIGHTS, model)
    safetensors.numpy.save_file({"0.weight/norms": NORMS}, stats)
    arguments = ["solve", model, "-p", "2:4", "-o", masks, "--scores", "wanda", "--calibration", stats, "--local"]
    assert run([str(argument) for argument in arguments]) == 0
    expected = ms.solve(ms.wanda(WEIGHTS["0.weight"], NORMS), "2:4").mask
    found = Masks.open(masks)
    assert list(found) == ["0.weight"]
    assert (found["0.weight"] == expected).all()
    assert "skipped 1: 1.weight" in capsys.readouterr().out
    assert run(["solve", str(model), "-p", "2:4", "-o", str(masks), "--scores", "wanda", "--local"]) == 2
    assert "need a calibration" in capsys.readouterr().err
