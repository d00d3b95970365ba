"""Real layers with the inputs that real text gives them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import masksmith as ms

sys.path.append(str(Path(__file__).resolve().parents[3] / "examples"))
import minilm

ATTENTION = [f"encoder.layer.2.attention.{part}.weight" for part in ("self.query", "output.dense")]
ALL = [glob.replace("encoder.*", "encoder.layer.*") for glob in minilm.LINEARS]


@pytest.fixture(scope="module")
def model():
    return minilm.load()


def check(model, layers, pattern, passages):
    known = ms.calibrate(model, minilm.passages(passages).split(16), gather=("gram",), layers=layers)
    for name in known:
        weight, gram = model.state_dict()[name], known[name].gram
        mask = ms.solve(ms.magnitude(weight), pattern).mask
        update = ms.reconstruct(weight, mask, gram, name=name)
        exact = ms.reconstruct(weight, mask, gram, name=name, tolerance=0.0)
        assert update.stats["factorisations"] == 0 < update.stats["iterations"]
        assert update.error == pytest.approx(exact.error, rel=1e-3), name
        assert update.error <= update.masked_error, name
        assert update.gain >= 1.3, name
        pruned = ms.admm(weight, gram, pattern, name=name)
        assert pruned.error < update.error, name
        assert pruned.solution.gap == 0.0
        assert ms.verify(pruned.weight != 0, pattern)


def test_reconstruction_gains_and_admm_gains_more(model):
    check(model, ATTENTION, "2:4", 8)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["2:4", "transposable 8:16"])
def test_every_layer_gains(model, pattern):
    check(model, ALL, pattern, 128)


def test_the_model_gives_the_embedding_that_its_makers_published(model):
    embedding = model.embed("This is an example sentence", minilm.Tokenizer())
    published = torch.tensor([0.0677, 0.0635, 0.0487, 0.0793, 0.0374, 0.0027, 0.0394, -0.0071])
    torch.testing.assert_close(embedding[:8], published, atol=1e-4, rtol=0)


def test_held_out_passages_share_no_topic_with_the_others():
    seen = {tuple(row[1:-1].tolist()) for row in minilm.passages(600)}
    held = {tuple(row[1:-1].tolist()) for row in minilm.passages(100, held_out=True)}
    assert len(held) == 100
    assert not seen & held
    with pytest.raises(ValueError, match="passages of 128 tokens, fewer than 9999"):
        minilm.passages(9999)
