"""Weights whose products sum over several axes stay dense, and the other weights of such models are pruned."""

import json

import pytest
import torch
import transformers
from support.language_models import WORDS, prune_command, save_tokenizer, write_text

import masksmith as ms
from masksmith_client.cli.app import run

SIZES = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "vocab_size": len(WORDS)}


@pytest.fixture
def xlnet():
    torch.manual_seed(0)
    return transformers.XLNetLMHeadModel(transformers.XLNetConfig(**SIZES))


def test_the_output_projection_of_xlnet_stays_dense(xlnet, tmp_path, capsys):
    xlnet.save_pretrained(tmp_path / "model")
    save_tokenizer(tmp_path / "model")
    text = write_text(tmp_path / "text.txt")
    assert run(prune_command(tmp_path / "model", tmp_path / "out", text)) == 0, capsys.readouterr().err
    record = json.loads((tmp_path / "out" / "masksmith.json").read_text())
    attention = {each["name"]: each for each in record["tensors"] if "rel_attn" in each["name"]}
    assert {name.rpartition(".")[2] for name, each in attention.items() if each["masked"]} == set("qkvr")
    reasons = [each["reason"] for name, each in attention.items() if name.endswith("rel_attn.o")]
    assert len(reasons) == 2
    assert all("sum over several of its axes" in reason for reason in reasons)
    name = "transformer.layer.0.rel_attn.o"
    assert run(prune_command(tmp_path / "model", tmp_path / "other", text, "--layers", name)) == 2
    assert "sum over several of its axes" in " ".join(capsys.readouterr().err.split())


def test_a_weight_without_visible_products_has_a_reason_without_advice_that_does_not_help(xlnet):
    batches = [torch.randint(0, len(WORDS), (2, 32)) for _ in range(2)]
    report = ms.prune(xlnet, batches, "2:4")
    name = "transformer.layer.0.rel_attn.o"
    assert report.skipped[name].startswith("no product of the first batch shows its axes")
    with pytest.raises(ms.PruningError, match="sum over several of its axes"):
        ms.prune(xlnet, batches, "2:4", layers=name, layouts={name: "out in kernel"})
