"""A pattern for each tensor through the whole stack: SDK, asyncio, plain HTTP and command line, against the library."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import masksmith as ms
from masksmith_client import AsyncClient, InputError
from masksmith_client.results.masks import Masks

MASKSMITH = Path(sys.executable).with_name("masksmith")
PATTERNS = {
    "h.0.attn.q.weight": "transposable 4:8",
    "h.0.attn.o.weight": "1:4",
    "h.0.mlp.up.weight": "2:4",
    "h.0.mlp.tied.weight": "50%",
}
TEXTS = ["2:4", "attn=transposable 4:8", "*.o.weight=1:4", "h.0.mlp.tied.weight=50%"]


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(5)
    weights = {name: rng.standard_normal((32, 48)).astype(np.float32) for name in PATTERNS}
    # Equal weights under two patterns are two results.
    weights["h.0.mlp.tied.weight"] = weights["h.0.mlp.up.weight"]
    return weights


@pytest.fixture(scope="module")
def expected(model):
    return {name: ms.solve(np.abs(model[name]), pattern) for name, pattern in PATTERNS.items()}


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("patterns") / "model.safetensors"
    safetensors.numpy.save_file(model, path)
    return path


def check(masks, expected):
    assert set(masks) == set(PATTERNS)
    assert {name: info.pattern for name, info in masks.infos.items()} == PATTERNS
    for name, solution in expected.items():
        assert np.array_equal(masks[name], solution.mask), name


def test_the_client_gives_patterns_as_texts_and_by_selector(client, stack, model, expected):
    job = client.jobs.submit(model, TEXTS).wait(240)
    check(job.masks(), expected)
    assert {name: report.pattern for name, report in job.report.items()} == PATTERNS
    for name, report in job.report.items():
        assert report.objective == pytest.approx(expected[name].objective, rel=1e-6)
        assert report.fill == pytest.approx(1.0)
    by_selector = {"*": "2:4", **dict(text.split("=") for text in TEXTS[1:])}

    async def solve():
        async with AsyncClient(stack.url) as own:
            return await own.solve(model, by_selector, timeout_s=240)

    check(asyncio.run(solve()), expected)


def test_patterns_that_cannot_be_used_are_refused_before_anything_is_sent(client, model):
    for patterns, options, message in (
        (["2:4", "nothing=1:4"], {}, "'nothing'"),
        (["2:4", "attn=1:4"], {"budget": "50%"}, "the budget decides the patterns of single tensors"),
        ({"attn": ms.NM(2, 4, axis="out"), "mlp": "2:4"}, {}, "the same axis and ragged"),
        (["2:4", "attn=transposable 4:8"], {"solver": "top-k"}, "top-k"),
    ):
        with pytest.raises(InputError, match=message):
            client.solve(model, patterns, **options)


def test_a_raw_file_and_its_windows(client, stack, path, expected):
    params = {"pattern": TEXTS}
    answer = stack.http.post("/v1/masks", params=params, content=path.read_bytes()).raise_for_status()
    job = client.jobs.get(answer.json()["id"]).wait(240)
    check(job.masks(), expected)
    window = stack.http.get(f"/v1/jobs/{job.id}/window", params={"tensor": "h.0.attn.o.weight"}).raise_for_status()
    kept = safetensors.numpy.load(window.content)["kept"]
    assert np.array_equal(kept != 0, expected["h.0.attn.o.weight"].mask)
    for address in (f"/jobs/{job.id}", f"/jobs/{job.id}/layer?tensor=h.0.attn.q.weight", "/jobs"):
        assert "transposable 4:8" in stack.http.get(address).raise_for_status().text
    document = {"kind": "benchmark", "masks_of": job.id}
    refused = stack.http.post("/v1/jobs", json=document)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_mask")


def test_the_command_line_gives_the_same_with_and_without_a_service(stack, path, tmp_path, expected):
    for number, where in enumerate((["--url", stack.url], ["--local"])):
        output = tmp_path / f"{number}.safetensors"
        options = [word for text in TEXTS for word in ("--pattern", text)]
        command = [MASKSMITH, "solve", path, *options, "-o", output, "--json", *where]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
        report = json.loads(result.stdout)
        assert {tensor["name"]: tensor["pattern"] for tensor in report["tensors"]} == PATTERNS
        assert set(report["pattern"].split(", ")) == set(PATTERNS.values())
        check(Masks.open(output), expected)
        verdict = subprocess.run([MASKSMITH, "verify", output], capture_output=True, text=True, check=True)
        assert "4 mask(s): all satisfy their patterns" in verdict.stdout
