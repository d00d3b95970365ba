"""Transposed and stacked tensors through the whole stack: SDK, plain HTTP and command line, against the library."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

import masksmith as ms
from masksmith.layouts import Layout
from masksmith_client import InputError
from masksmith_client.results.masks import Masks

MASKSMITH = Path(sys.executable).with_name("masksmith")
E, O, I = 3, 24, 20  # noqa: E741
CONV1D = {"h.0.attn.c_attn.weight": (I, 3 * I), "h.0.mlp.c_fc.weight": (I, O), "h.0.mlp.c_proj.weight": (O, I)}
EXPERTS = {"h.0.mlp.experts.gate_up_proj": (E, I, 2 * O), "h.0.mlp.experts.down_proj": (E, O, I)}
DENSE = {"wte.weight": (40, I), "lm_head.weight": (40, I), "h.0.ln_1.weight": (I,), "h.0.mlp.router.weight": (E, I)}
AXES = dict.fromkeys(CONV1D, "in out") | dict.fromkeys(EXPERTS, "stack in out")


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in (CONV1D | EXPERTS | DENSE).items()}


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("layouts") / "model.safetensors"
    safetensors.numpy.save_file(model, path)
    return path


@pytest.mark.parametrize("pattern", ["2:4", "transposable 8:16", "50%"])
def test_masks_are_those_of_the_library(client, model, pattern):
    job = client.jobs.submit(model, pattern).wait(240)
    masks = job.masks()
    assert set(masks) == set(AXES)
    for name, axes in AXES.items():
        layout = Layout.parse(axes, out_parts=(I, I, I) if "c_attn" in name else ())
        expected = ms.solve(np.abs(model[name]), pattern, layout=layout)
        report = job.report[name]
        assert np.array_equal(masks[name], expected.mask)
        assert (report.layout.axes, report.layout.rule, report.gap) == (axes, "name", 0.0)
        assert report.objective == pytest.approx(expected.objective, rel=1e-6)
        assert report.fill == pytest.approx(1.0)
    assert {skip.name for skip in job.skipped} == set(DENSE)


def test_a_raw_file_is_read_by_names_and_shapes(client, stack, model, path, tmp_path):
    answer = stack.http.post(
        "/v1/masks", params={"pattern": "2:4", "exclude": "*c_fc*"}, content=path.read_bytes()
    ).raise_for_status()
    job = client.jobs.get(answer.json()["id"]).wait(240)
    masks = job.masks()
    assert set(masks) == set(AXES) - {"h.0.mlp.c_fc.weight"}
    assert all(ms.verify(masks[name], "2:4", layout=AXES[name]) for name in masks)
    saved = masks.save(tmp_path / "masks.safetensors")
    verdict = subprocess.run([MASKSMITH, "verify", saved, "--json"], capture_output=True, text=True, check=True)
    assert {mask["name"] for mask in json.loads(verdict.stdout)["masks"]} == set(masks)
    assert Masks.open(saved).infos["h.0.mlp.experts.down_proj"].axes == "stack in out"


def test_the_command_line_gives_the_same_with_and_without_a_service(stack, path, tmp_path):
    files = []
    for number, where in enumerate((["--url", stack.url], ["--local"])):
        files.append(tmp_path / f"{number}.safetensors")
        command = [MASKSMITH, "solve", path, "--pattern", "transposable 2:4", "-o", files[-1], *where]
        subprocess.run(command, check=True, capture_output=True)
    one, other = map(Masks.open, files)
    assert set(one) == set(other) == set(AXES)
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_the_caller_says_how_a_tensor_is_made(client, stack):
    tensor = np.abs(np.random.default_rng(1).standard_normal((4, 20, 32))).astype(np.float32)
    with pytest.raises(InputError, match="may be a convolution or stacked matrices"):
        client.solve({"blocks": tensor}, "2:4")
    mask = client.solve({"blocks": tensor}, "2:4", layout={"blocks": "stack in out"})["blocks"]
    assert np.array_equal(mask, ms.solve(tensor, "2:4", layout="stack in out").mask)
    with pytest.raises(InputError, match="no tensor has this name"):
        client.solve({"blocks": tensor}, "2:4", layout={"block": "stack in out"})
    with pytest.raises(InputError, match="axis 'rows' is not one of"):
        client.solve({"blocks": tensor}, "2:4", layout={"blocks": "stack rows in"})
    content = safetensors.numpy.save({"blocks": tensor})
    refused = stack.http.post("/v1/masks", params={"pattern": "2:4", "layout": "blocks"}, content=content)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_layout")
    taken = stack.http.post("/v1/masks", params={"pattern": "2:4", "layout": "blocks=stack in out"}, content=content)
    assert client.jobs.get(taken.json()["id"]).wait(240).report["blocks"].layout.rule == "user"


def test_scores_and_updates_of_each_matrix_use_its_own_statistics(client, model):
    name, rng = "h.0.mlp.experts.down_proj", np.random.default_rng(2)
    inputs = rng.standard_normal((E, 64, O)) * rng.exponential(size=(E, 1, O))
    grams = np.swapaxes(inputs, 1, 2) @ inputs
    weights = {name: model[name], "h.0.mlp.experts.gate_up_proj": model["h.0.mlp.experts.gate_up_proj"]}
    job = client.jobs.submit(weights, "2:4", layers=name, update="reconstruct", calibration={name: grams}).wait(240)
    mask, updated, layout = job.masks()[name], job.weights()[name], Layout.parse("stack in out")
    parts = zip(*map(layout.matrices, (mask, updated, model[name])), grams, strict=True)
    for own_mask, own_weight, weight, gram in parts:
        expected = ms.reconstruct(np.ascontiguousarray(weight), own_mask, gram)
        np.testing.assert_allclose(own_weight, expected.weight, rtol=1e-5, atol=1e-6)
    norms = np.sqrt(np.einsum("sii->si", grams)).astype(np.float32)
    scored = client.jobs.submit(weights, "2:4", layers=name, scores="wanda", calibration={name: norms}).wait(240)
    for own_mask, weight, own_norms in zip(
        *map(layout.matrices, (scored.masks()[name], model[name])), norms, strict=True
    ):
        assert np.array_equal(own_mask, ms.solve(ms.wanda(np.ascontiguousarray(weight), own_norms), "2:4").mask)


def test_a_budget_of_stacked_matrices_is_refused(client, model):
    with pytest.raises(InputError, match="a budget does not go with its layout 'stack in out'"):
        client.jobs.submit(model, "2:4", layers="*experts*", budget="50%")


def test_modules_say_how_their_weights_are_made(client):
    class Conv1D(torch.nn.Module):
        """What `transformers` calls so: `[in, out]`."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(16, 16))

    model = torch.nn.ModuleDict({"c": Conv1D(), "t": torch.nn.ConvTranspose2d(8, 12, 3), "e": torch.nn.Embedding(9, 8)})
    masks = client.solve(model, "2:4")
    assert set(masks) == {"c.weight", "t.weight"}
    assert ms.verify(masks["c.weight"], "2:4", layout="in out")
    assert ms.verify(masks["t.weight"], "2:4", layout="in out kernel kernel")
