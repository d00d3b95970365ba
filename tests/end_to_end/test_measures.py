"""Measures in reports: what the service adds up is what the library measures of the whole mask."""

import json

import pytest

import masksmith as ms
from masksmith_client import BadRequest, InputError
from masksmith_client.cli.app import run

NAME = "encoder.layer.0.attention.output.dense.weight"


def test_reports_measure_masks_and_changes(client, layers, tmp_path):
    first = client.solve(layers, "2:4")
    report = first.job.report[NAME]
    assert (report.fill, report.change, report.spectrum) == (1.0, None, None)
    assert report.storage_bytes["two_four"] == layers[NAME].size // 2 * 4 + layers[NAME].size // 8
    assert report.diversity.count == "6"
    path = first.save(tmp_path / "first.safetensors")
    for previous in (first, first.job, first.job.id, path):
        again = client.solve(layers, "transposable 2:4", previous=previous, spectrum=True)
        solution = ms.solve(ms.magnitude(layers[NAME]), "transposable 2:4")
        expected = ms.report(solution, first[NAME], weight=layers[NAME], item_bytes=4)
        found = again.job.report[NAME]
        assert (found.change.sad, found.change.flip_rate) == (expected.change.sad, expected.change.flip_rate)
        assert found.spectrum.mean == pytest.approx(expected.spectrum.mean)
        assert found.storage_bytes == dict(expected.storage_bytes)


def test_tied_weights_travel_once_and_are_solved_once(client, layers):
    masks = client.solve({"a": layers[NAME], "b": layers[NAME].copy()}, "transposable 2:8")
    alone = client.solve({"a": layers[NAME]}, "transposable 2:8")
    assert masks.job.document.progress.total == alone.job.document.progress.total
    assert (masks["a"] == masks["b"]).all()
    assert masks.job.report["a"].objective == masks.job.report["b"].objective


def test_what_is_no_previous_mask(client, layers, tmp_path, model_path):
    with pytest.raises(InputError, match="is not a job, masks of a job, or the path or reference of a masks file"):
        client.solve(layers, "2:4", previous=tmp_path / "nothing")
    with pytest.raises(InputError, match="is not a mask"):
        client.solve(layers, "2:4", previous=model_path)
    other = client.solve({"other": layers[NAME]}, "2:4")
    with pytest.raises(BadRequest, match="contains no mask for any tensor of this job"):
        client.solve(layers, "2:4", previous=other)
    with pytest.raises(InputError, match="top-k solves plain"):
        client.solve(layers, "2:4", solver="exact")


def test_the_command_line_shows_them(stack, model_path, tmp_path, capsys):
    before, after = tmp_path / "before.safetensors", tmp_path / "after.safetensors"
    words = ["solve", str(model_path), "--layers", NAME]
    assert run([*words, "-p", "2:4", "-o", str(before), "--url", stack.url]) == 0
    capsys.readouterr()
    told = []
    for where in (["--url", stack.url], ["--local"]):
        arguments = [*words, "-p", "4:8", "-o", str(after), "--previous", str(before), "--spectrum", *where]
        assert run([*arguments, "--json"]) == 0
        told.append(json.loads(capsys.readouterr().out)["tensors"][0])
        assert run(arguments) == 0
        assert "singular values" in capsys.readouterr().out
    for member in ("fill", "storage_bytes", "diversity", "change"):
        assert told[0][member] == told[1][member]
    assert told[0]["spectrum"] == pytest.approx(told[1]["spectrum"])
    assert run([*words, "-p", "4:8", "-o", str(after), "--local", "--previous", "ab"]) == 2
    assert "is not a file; with --local pass a masks file" in capsys.readouterr().err
