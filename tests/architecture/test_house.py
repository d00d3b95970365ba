"""Sizes, names and versions."""

import importlib.metadata
import re
import statistics
import subprocess
import tomllib
from pathlib import Path

import pytest

import masksmith as ms
import masksmith_client

ROOT = Path(__file__).parents[2]
SOURCES = [
    path for name in ("solver", "wire", "state", "service", "worker", "client") for path in (ROOT / name).rglob("*.py")
]
TESTS = list((ROOT / "tests").rglob("*.py"))

LIBRARY = {
    "AdmmUpdate", "Allocation", "Auto", "Block", "Budget", "Calibration", "Channels", "DoublePruned", "Enumerate",
    "Exact", "Greedy", "Hybrid", "InfeasibleError", "MasksmithError", "MinCostFlow", "MissingExtraError",
    "NM", "Panel", "PanelAnswer", "Pattern",
    "PatternError", "Permutation", "PrunedModel", "PruningError", "Refinement",
    "ScoresError", "Sinkhorn", "Solution", "Solver", "SolverError", "Status",
    "TopK", "Unstructured", "Update", "UpdateError", "VNM", "Verdict", "VerificationError", "WeightError",
    "admm", "allocate", "calibrate",
    "choose_n", "diversity", "magnitude", "parse", "permute", "pfp", "prune", "reconstruct", "refine", "report", "ria",
    "sampling_bound", "sipp", "solve", "solve_many", "sparsegpt", "taylor", "verify", "wanda", "warm_up", "zero_rate",
}  # fmt: skip
CLIENT = {
    "AsyncClient", "AsyncJob", "BadRequest", "BenchmarkOptions", "Client", "ClientError", "Conflict",
    "ConnectError", "Event", "Info", "InputError", "Job", "JobFailedError", "JobState", "Masks", "NotFound",
    "PruneOptions", "RateLimited", "RetryPolicy", "ServerError", "StatusError", "SubmitOptions", "TensorReport",
    "TimeoutError", "TransportError", "Unauthorized", "WireError", "__version__",
}  # fmt: skip


def lines(path):
    return len(path.read_text().splitlines())


def test_files_are_small():
    long = {str(path.relative_to(ROOT)): lines(path) for path in SOURCES + TESTS if lines(path) > 400}
    assert not long
    assert statistics.median(map(lines, SOURCES)) <= 120


def test_no_file_is_called_after_nothing():
    vague = {"utils.py", "helpers.py", "common.py", "misc.py", "util.py"}
    assert not [path for path in SOURCES + TESTS if path.name in vague]


def test_the_library_exports_exactly_this():
    assert sorted(ms.__all__) == sorted(LIBRARY)
    assert dir(ms) == sorted(LIBRARY)


@pytest.mark.parametrize("name", sorted(LIBRARY))
def test_every_exported_name_is_there(name):
    assert getattr(ms, name).__name__ == name


def test_names_that_do_not_exist_are_attribute_errors():
    with pytest.raises(AttributeError, match="has no attribute 'slove'"):
        ms.slove  # noqa: B018


def test_the_client_exports_exactly_this():
    source = (ROOT / "client/masksmith_client/__init__.py").read_text()
    assert set(re.findall(r"\b(\w+) as \1\b", source)) == CLIENT
    assert all(hasattr(masksmith_client, name) for name in CLIENT)


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [newest, *_] = re.findall(r"^## \[(\d\S*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1]
    installed = importlib.metadata.version("masksmith")
    assert {newest, cited, installed, ms.__version__, masksmith_client.__version__} == {project["version"]}


def test_what_is_left_to_do_names_an_issue():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    loose = re.compile(r"\b(TODO|FIXME|XXX)\b(?!\(#\d+\))")
    readable = [ROOT / name for name in tracked.split("\0") if name.endswith((".py", ".toml", ".yml", "Makefile"))]
    this = Path(__file__)
    found = [str(path) for path in readable if path != this and path.exists() and loose.search(path.read_text())]
    assert not found
