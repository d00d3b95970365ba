"""Names that are loaded when first used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import masksmith
import masksmith.adapters
import masksmith.benchmark
import masksmith.calibration
import masksmith_client
import masksmith_client.training

PACKAGES = [masksmith, masksmith.adapters, masksmith.benchmark, masksmith.calibration, masksmith_client.training]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_name_is_there_and_listed(package):
    assert package.__all__
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(getattr(package, name), "__name__", name) == name


@pytest.mark.parametrize("package", [*PACKAGES, masksmith_client], ids=lambda package: package.__name__)
def test_type_checkers_see_the_names_that_are_loaded(package):
    imports = [
        node for node in ast.walk(ast.parse(Path(package.__file__).read_text())) if isinstance(node, ast.ImportFrom)
    ]
    assert {alias.asname for node in imports for alias in node.names if alias.asname} == set(package.__all__)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_other_names_are_refused(package):
    with pytest.raises(AttributeError, match=rf"module '{package.__name__}' has no attribute 'sideways'"):
        package.sideways  # noqa: B018


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("masksmith.solve", "numba", "solver"),
        ("masksmith.Greedy", "torch", "torch"),
        ("masksmith.Sinkhorn", "torch", "torch"),
        ("masksmith.calibrate", "torch", "torch"),
        ("masksmith.reconstruct", "torch", "torch"),
        ("masksmith.admm", "torch", "torch"),
        ("masksmith.adapters.MaskPruning", "torch", "torch"),
        ("masksmith.benchmark.Bench", "torch", "bench"),
        ("masksmith.calibration.calibrate", "torch", "torch"),
        ("masksmith.cuda.solve_on", "torch", "torch"),
        ("masksmith_client.training.Sparsifier", "torch", "train"),
    ],
)
def test_what_is_missing_is_named_with_the_extra_that_brings_it(name, module, extra):
    package = name.rpartition(".")[0]
    error = fail_without(module, f"import {package}\n{name}")
    assert error == f"{name} needs {module}: pip install 'masksmith[{extra}]'"


@pytest.mark.parametrize("solver", ["greedy", "sinkhorn"])
def test_a_solver_by_name_says_which_extra_it_needs(solver):
    code = f"import masksmith as ms, numpy as np\nms.solve(np.ones((16, 16)), 'transposable 8:16', {solver!r})"
    assert fail_without("torch", code) == f"solver {solver!r} needs torch: pip install 'masksmith[torch]'"


def test_a_package_that_needs_torch_as_a_whole_says_so():
    error = fail_without("torch", "import masksmith.updates")
    assert error == "masksmith.updates needs torch: pip install 'masksmith[torch]'"


def test_the_error_is_the_librarys_and_pythons():
    error = masksmith.MissingExtraError("masksmith.admm", "torch", "torch")
    assert isinstance(error, masksmith.MasksmithError)
    assert isinstance(error, ModuleNotFoundError)
    assert (error.name, error.extra) == ("torch", "torch")


@pytest.mark.parametrize("name", list(masksmith.benchmark.own_kernels()))
def test_kernels_say_that_torch_is_missing(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr("masksmith.benchmark.kernel.find_spec", lambda module: None)
    for device in ("cpu", "cuda"):
        obstacle = masksmith.benchmark.own_kernels()[name].obstacle(device)
        assert obstacle == "it needs torch: pip install 'masksmith[bench]'"


def fail_without(missing, code):
    """Run code in a process that has no such module; gives the message of the error that ends it."""
    hide = f"""
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name == {missing!r}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Without())
"""
    done = subprocess.run([sys.executable, "-P", "-c", hide + code], capture_output=True, text=True, check=False)
    kind, _, message = done.stderr.splitlines()[-1].partition(": ")
    assert kind == "masksmith.patterns.errors.MissingExtraError"
    return message
