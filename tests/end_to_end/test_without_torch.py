"""The main job where torch is not installed, and what of torch a worker loads where it is."""

import json
import subprocess
import sys
from pathlib import Path

import httpx2
import numpy as np
import pytest
import safetensors.numpy
from support.processes import MASKSMITH, Up, environment, poll, pool_of

import masksmith as ms
from masksmith_client import Client
from masksmith_wire.dtypes import to_bytes, to_numpy
from masksmith_wire.headers import build_header
from masksmith_wire.masks import read_infos, unpack

PATTERN = "transposable 8:16"
SHAPES = {"flat": (96, 80), "convolution": (32, 16, 3, 3)}
RNG = np.random.default_rng(31)
# scipy, too: only benchmarks bring it.
ABSENT = "torch,scipy"
LINE = "pip install 'masksmith[torch]'"


def observed(**given):
    return environment(PYTHONPATH=str(Path(__file__).with_name("imports")), **given)


WITHOUT = observed(ABSENT_PACKAGES=ABSENT)


def run(*command):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=WITHOUT, check=False)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """An installation without torch; gives its URL."""
    folder = tmp_path_factory.mktemp("bare")
    up = Up(folder / "data", folder / "up.log", WITHOUT)
    yield up.url
    assert up.stop() == 0


@pytest.fixture
def http(bare):
    with httpx2.Client(base_url=bare, timeout=300) as http:
        yield http


@pytest.fixture
def model(tmp_path, request):
    """A file of two weights of the dtypes that the test names, and what they hold."""
    dtypes = dict(zip(SHAPES, request.param, strict=True))
    values = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    data = {name: to_bytes(value, dtypes[name]) for name, value in values.items()}
    path = tmp_path / "model.safetensors"
    header = build_header({name: (dtypes[name], shape) for name, shape in SHAPES.items()})
    path.write_bytes(header + b"".join(data.values()))
    return path, dtypes, {name: to_numpy(data[name], dtypes[name], shape) for name, shape in SHAPES.items()}


def read_masks(path):
    data = path.read_bytes()
    infos = read_infos(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"])
    return {name: unpack(packed, infos[name].shape) for name, packed in safetensors.numpy.load(data).items()}


def test_torch_is_missing_there():
    assert run(sys.executable, "-c", "import torch").stderr.endswith("ModuleNotFoundError: No module named 'torch'\n")


@pytest.mark.parametrize(
    ("model", "place"), [(("BF16", "BF16"), "service"), (("F16", "F32"), "here")], indirect=["model"]
)
def test_the_main_job_needs_no_torch(bare, model, place, tmp_path):
    path, dtypes, weights = model
    masks, applied = tmp_path / "masks.safetensors", tmp_path / "applied.safetensors"
    where = ["--local"] if place == "here" else ["--url", bare]
    done = run(MASKSMITH, "solve", path, "-p", PATTERN, "-o", masks, *where, "--json")
    assert done.returncode == 0, done.stderr
    assert {tensor["status"] for tensor in json.loads(done.stdout)["tensors"]} == {"optimal"}
    found = read_masks(masks)
    for name, weight in weights.items():
        assert (found[name] == ms.solve(ms.magnitude(weight), PATTERN, threads=1).mask).all()
    assert run(MASKSMITH, "verify", masks).returncode == 0
    done = run(MASKSMITH, "apply", masks, path, "-o", applied, "--json")
    assert done.returncode == 0, done.stderr
    data = b"".join(to_bytes(np.where(found[name], weight, 0), dtypes[name]) for name, weight in weights.items())
    assert applied.read_bytes().endswith(data)


@pytest.mark.parametrize("model", [("BF16", "BF16")], indirect=True)
def test_pages_show_bfloat16_without_torch(bare, http, model):
    path, _, weights = model
    with Client(bare) as client:
        job = client.jobs.submit(path, PATTERN, progress=False)
        mask = job.wait().masks()["flat"]
    query = {"tensor": "flat", "rows": 40, "cols": 30}
    window = safetensors.numpy.load(http.get(f"/v1/jobs/{job.id}/window", params=query).raise_for_status().content)
    assert (window["kept"] == mask[:40, :30]).all()
    assert (window["scores"] == np.abs(weights["flat"][:40, :30])).all()
    assert "optimal" in http.get(f"/jobs/{job.id}").raise_for_status().text


@pytest.mark.parametrize("solver", ["greedy", "sinkhorn"])
def test_a_solver_that_needs_torch_is_refused_by_name(bare, http, solver):
    weight = RNG.standard_normal((32, 32)).astype(np.float32)
    data = safetensors.numpy.save({"w": weight})
    job = http.post("/v1/masks", params={"pattern": PATTERN, "solver": solver}, content=data).json()["id"]
    document = poll(lambda: (found := http.get(f"/v1/jobs/{job}").json())["state"] == "failed" and found)
    error = document["tensors"][0]["error"]
    assert (error["code"], error["message"]) == (
        "extra_missing", f"tensor 'w': solver {solver!r} needs torch: {LINE}"
    )  # fmt: skip


def test_an_update_is_refused_before_anything_is_solved(bare):
    weight, inputs = RNG.standard_normal((32, 32)), RNG.standard_normal((100, 32))
    with Client(bare) as client:
        job = client.jobs.submit(
            {"w": weight}, PATTERN, update="reconstruct", calibration={"w": inputs.T @ inputs}, progress=False
        )
        poll(lambda: job.refresh().state == "failed")
        error = job.document.tensors[0].error
    assert (error.code, error.message) == ("extra_missing", f"tensor 'w': masksmith.reconstruct needs torch: {LINE}")


@pytest.mark.parametrize("model", [("F32", "F32")], indirect=True)
def test_solving_here_says_which_extra_is_missing(model, tmp_path):
    done = run(MASKSMITH, "solve", model[0], "-p", PATTERN, "-o", tmp_path / "out", "--local", "--solver", "greedy")
    assert (done.returncode, done.stderr) == (2, f"masksmith: solver 'greedy' needs torch: {LINE}\n")


@pytest.mark.parametrize(
    ("arguments", "needs"),
    [
        (["bench", "--local", "--shapes", "64x64", "-p", "2:4"], "masksmith.benchmark.benchmark needs torch"),
        (["up", "--port", "0", "--bench"], "--bench needs torch"),
    ],
)
def test_commands_that_need_torch_name_the_extra(arguments, needs):
    done = run(MASKSMITH, *arguments)
    assert (done.returncode, done.stderr) == (2, f"masksmith: {needs}: pip install 'masksmith[bench]'\n")


@pytest.mark.parametrize(
    ("given", "extra"),
    [({"MASKSMITH_WORKER_ROLE": "bench"}, "bench"), ({"MASKSMITH_WORKER_DEVICE": "cuda:0"}, "cuda")],
)
def test_workers_that_need_torch_do_not_start(given, extra):
    command = [sys.executable, "-P", "-m", "masksmith_worker"]
    done = subprocess.run(command, capture_output=True, text=True, env=WITHOUT | given, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith(f"needs torch: pip install 'masksmith[{extra}]'\n")


def test_a_worker_that_solves_exact_jobs_loads_no_torch(tmp_path):
    folder = tmp_path / "imports"
    folder.mkdir()
    up = Up(
        tmp_path / "data", tmp_path / "up.log", observed(IMPORTS_FOLDER=str(folder)), "--no-bench", "--workers", "1"
    )
    try:
        weight = RNG.standard_normal((512, 512)).astype(np.float32)
        with Client(up.url) as client:
            report = client.solve({"w": weight}, PATTERN, solver="exact", progress=False).job.report["w"]
        assert (report.status, report.solver) == ("optimal", "exact")
        worker = up.part(b"masksmith_worker")
        processes = [worker, *pool_of(worker)]
        assert len(processes) > 1
        imports = {process: set((folder / str(process)).read_text().split()) for process in processes}
    finally:
        up.stop()
    for names in imports.values():
        assert {"numba", "masksmith._solve"} <= names
        assert "torch" not in names
