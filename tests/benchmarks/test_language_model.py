"""The peers' loop over blocks is that of `masksmith.prune`, and the table has the best row of a pattern first."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from support.causal_models import causal_model, token_batches

import masksmith as ms

MIXING = np.random.default_rng(0).standard_normal((16, 16))
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def language_model(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import language_model

    return language_model


def test_a_method_in_the_loop_of_peers_gives_what_prune_gives(language_model):
    from peers.block_by_block import prune_block_by_block

    def wanda(weight, gram):
        return weight * torch.as_tensor(ms.solve(ms.wanda(weight, gram.diagonal().sqrt()), "2:4").mask)

    model, expected, batches = causal_model("llama"), causal_model("llama"), token_batches()
    prune_block_by_block(model, model.model.layers, batches, wanda)
    ms.prune(expected, batches, "2:4", scores="wanda", update=None)
    for name, parameter in expected.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name)), name


@pytest.mark.parametrize("pattern", ["2:4", "50%"])
@pytest.mark.parametrize("method", ["Wanda, by row", "SparseGPT", "ALPS", "SparseSwaps"])
def test_peers_obey_the_pattern(language_model, method, pattern):
    model, batches = causal_model("llama"), token_batches()
    language_model.METHODS[method](model, batches, pattern)
    weight = model.model.layers[1].mlp.down_proj.weight
    assert ms.verify(weight != 0, pattern, at_most=True)
    assert (weight == 0).float().mean() == 0.5


@pytest.mark.parametrize("method", ["Wanda, by row", "SparseSwaps"])
def test_peers_that_compare_weights_of_a_row_keep_a_share_of_each_row(language_model, method):
    model, batches = causal_model("llama"), token_batches()
    language_model.METHODS[method](model, batches, "50%")
    assert ((model.model.layers[1].mlp.down_proj.weight == 0).float().mean(1) == 0.5).all()


@pytest.mark.parametrize(("pattern", "n", "m"), [("2:4", 2, 4), ("3:8", 3, 8), ("50%", 8, 16)])
def test_exchanges_end_where_no_exchange_is_better(language_model, pattern, n, m):
    from peers.selection import selection
    from peers.sparse_swaps import sparse_swaps

    rng = np.random.default_rng(m)
    weight, inputs = rng.standard_normal((3, 16)).astype(np.float32), rng.standard_normal((40, 16)) @ MIXING
    gram = inputs.T @ inputs
    pruned = sparse_swaps(torch.from_numpy(weight), torch.from_numpy(gram), selection(pattern)).numpy()
    for row, kept in zip(weight.astype(float), pruned != 0, strict=True):
        assert (kept.reshape(-1, m).sum(1) == n).all()
        least = _error(row, kept, gram)
        for i, j in product(np.flatnonzero(kept), np.flatnonzero(~kept)):
            if i // m == j // m:
                other = kept.copy()
                other[[i, j]] = False, True
                assert _error(row, other, gram) >= least * (1 - 1e-5)


def _error(row, kept, gram):
    dropped = row * ~kept
    return dropped @ gram @ dropped


def test_rows_are_ordered_by_pattern_and_perplexity(language_model):
    row = {
        "seconds": 1.0,
        "peak_mib": 1.0,
        "zeros": 0.5,
        "tokens_sha256": "0" * 64,
        "stamp": "Machine: x; commit abc; y.",
    }
    rows = [
        row | {"method": method, "pattern": pattern, "perplexity": perplexity}
        for method, pattern, perplexity in [("a", "2:4", 30.0), ("b", "2:4", 20.0), ("dense", "-", 17.0)]
    ]
    lines = [line.split()[1] for line in language_model.page(rows).splitlines() if line.startswith("| ")]
    assert lines == ["method", "dense", "b", "a"]


def test_every_row_of_the_table_has_a_method(language_model):
    assert {method for method, _ in language_model.TABLE_ROWS} == set(language_model.METHODS)


def test_every_missing_row_is_measured_in_a_process_of_its_own(language_model, monkeypatch):
    commands = []
    monkeypatch.setattr(language_model, "TABLE_ROWS", [("dense", "-"), ("Wanda", "2:4"), ("RIA", "50%")])
    monkeypatch.setattr(language_model, "_read_rows", lambda: [{"method": "Wanda", "pattern": "2:4"}])
    monkeypatch.setattr("subprocess.run", lambda command, check: commands.append(command[2:]) if check else None)
    monkeypatch.setattr("sys.argv", ["language_model.py", "model", "--missing", "--write"])
    language_model.main()
    assert commands == [["model", "dense", "-", "--write"], ["model", "RIA", "50%", "--write"]]


def test_a_run_without_a_method_is_refused_before_the_model_is_loaded(language_model, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["language_model.py", "model"])
    with pytest.raises(SystemExit):
        language_model.main()
    assert "name a METHOD, or use --missing" in capsys.readouterr().err
