"""The studies run, at their smallest; what they are made of is right; and the pages tell of all of them."""

from __future__ import annotations

import importlib
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import masksmith as ms

sys.path.append(str(Path(__file__).resolve().parents[2] / "examples" / "studies"))
ROOT = Path(__file__).resolve().parents[2]
LONG = {"block_size", "unification"}
STUDIES = sorted(path for path in (ROOT / "examples" / "studies").glob("*.py") if path.stem != "workbench")

VERDICT = re.compile(r"^- .*: \*\*(yes|not beyond the noise|the opposite)\*\* \(", re.MULTILINE)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    "study",
    [pytest.param(path, marks=pytest.mark.slow if path.stem in LONG else (), id=path.stem) for path in STUDIES],
)
def test_a_study_runs_and_says_what_showed_up(study, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(study), "--quick", "--out", str(tmp_path)])
    runpy.run_path(str(study), run_name="__main__")
    page = (tmp_path / f"{study.stem}.md").read_text()
    assert page in capsys.readouterr().out
    assert "a quick trial, which proves nothing" in page
    assert VERDICT.search(page)
    assert page.count("| ---") >= 1
    assert "nan" not in page
    assert (tmp_path / f"{study.stem}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_its_page_is_of_a_full_run(study):
    page = (ROOT / "docs" / "studies" / f"{study.stem}.md").read_text()
    assert "standard deviation over seeds" in page
    assert "quick" not in page
    assert VERDICT.search(page)
    assert f"(studies/{study.stem}.md)" in (ROOT / "docs" / "studies.md").read_text()


@pytest.mark.parametrize(
    ("difference", "word"), [([3, 4, 5], "yes"), ([-3, -4, -5], "the opposite"), ([3, -4, 1], "not beyond the noise")]
)
def test_a_verdict_looks_at_the_differences_of_shared_seeds(difference, word):
    workbench = importlib.import_module("workbench")
    base = [10.0, 200.0, -50.0]
    shifted = [value + change for value, change in zip(base, difference, strict=True)]
    assert f"**{word}**" in workbench.verdict("a claim", *workbench.paired(shifted, base))


def test_a_split_has_no_digit_twice():
    workbench = importlib.import_module("workbench")
    data = workbench.digits(3)
    assert (len(data.inputs), len(data.test_inputs)) == (1000, 797)
    again = workbench.digits(3)
    assert torch.equal(data.inputs, again.inputs)
    assert not torch.equal(data.inputs, workbench.digits(4).inputs)


def test_orthp_makes_a_net_isometric():
    isometry = importlib.import_module("isometry")
    net = isometry.without_small_neurons(isometry.linear_network(0, [64, 60, 60, 10]))
    assert [layer.weight.shape[0] for layer in net] == [12, 12, 10]
    assert isometry.mean_jsv(isometry.orthogonalise(net)) == pytest.approx(1.0, abs=1e-5)
    assert isometry.mean_jsv(net) < 0.5


@pytest.mark.parametrize("unify", [True, False])
def test_the_projection_is_the_nearest_of_all_choices_of_blocks(unify):
    unification = importlib.import_module("unification")
    weight = torch.from_numpy(np.random.default_rng(0).standard_normal((8, 8), dtype=np.float32))
    nearest, free = unification.project(weight, 0.5, unify=unify)
    assert ms.verify(free, "block 4x4 50%")
    flat = unification.level(weight, unify=unify)
    if unify:
        assert len(flat[:4, :4].abs().unique()) == 1
        assert torch.equal(flat.sign(), weight.sign())
    losses = sorted(
        float(((weight - flat)[row : row + 4, column : column + 4] ** 2).sum()) for row in (0, 4) for column in (0, 4)
    )
    assert float(((weight - nearest) ** 2).sum()) == pytest.approx(sum(losses[:2]), rel=1e-5)
