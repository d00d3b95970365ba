"""Whole-model budgets, through client, service and workers, on real layers."""

import json

import pytest

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.cli.app import run
from masksmith_client.results.masks import Masks


@pytest.mark.parametrize("pattern", ["50%", "block 16x16 50%", "transposable 8:16"])
def test_a_budget_keeps_more_than_the_same_share_of_every_layer(client, layers, pattern):
    masks = client.solve(layers, pattern, budget=ms.Budget("50%", {"*.query.*": "25%"}))
    uniform = client.solve(layers, pattern)
    entries = sum(layer.size for layer in layers.values())
    assert sum(int(mask.sum()) for mask in masks.values()) <= entries / 2
    assert sum(int(mask.sum()) for mask in masks.values()) > 0.499 * entries
    shared, same = (sum(report.objective for report in each.job.report.values()) for each in (masks, uniform))
    assert shared > same
    assert masks.job.document.budget_gap == 0.0
    for name, report in masks.job.report.items():
        assert report.status == "optimal"
        assert ms.verify(masks[name], report.pattern)
        assert masks.infos[name].pattern == report.pattern


def test_the_command_line_agrees_with_itself(stack, layers, model_path, tmp_path, capsys):
    remote, local = tmp_path / "remote.safetensors", tmp_path / "local.safetensors"
    words = ["solve", str(model_path), "-p", "8:16", "--budget", "50%", "--floor", "*.query.*=40%"]
    words += ["--layers", "encoder.layer.0.*", "--json"]
    assert run([*words, "-o", str(remote), "--url", stack.url]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["budget"], told["budget_gap"]) == ("50%", 0.0)
    assert len({tensor["pattern"] for tensor in told["tensors"]}) > 1
    assert run([*words, "-o", str(local), "--local"]) == 0
    assert remote.read_bytes() == local.read_bytes()
    assert Masks.open(local).infos["encoder.layer.0.attention.self.query.weight"].pattern.endswith(":16")
    assert run([*words[:-1], "-o", str(local), "--local"]) == 0
    assert "budget 50% distributed with gap 0" in capsys.readouterr().out
    assert run([*words[:4], "--budget", "1%", "-o", str(local), "--local"]) == 2
    assert "raise the density or lower the floors" in capsys.readouterr().err


def test_a_budget_that_cannot_be_met_is_refused_before_anything_is_sent(client, layers):
    with pytest.raises(InputError, match="matches no layer"):
        client.solve(layers, "50%", budget="50%", floors=["decoder.*=10%"])
    with pytest.raises(InputError, match="without a budget"):
        client.solve(layers, "50%", floors=["*=10%"])
