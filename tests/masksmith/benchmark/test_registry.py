"""Kernels of other packages come in through entry points; broken ones say so and harm nobody."""

import sys

import pytest

from masksmith.benchmark import Bench, BenchmarkError, all_kernels, benchmark, own_kernels
from masksmith.benchmark.registry import check_runnable

SOURCE = """
from masksmith.benchmark import Declaration, Packed, Support

class Twice:
    declaration = Declaration("twice", "dense, twice over", {"cpu": Support({"float32": (1, 1)})})

    def obstacle(self, device):
        return None

    def pack(self, operand):
        def run(x):
            x @ operand.matrix.t()
            return x @ operand.matrix.t()
        return Packed({"product": run}, operand.matrix.nbytes)

class Impostor(Twice):
    declaration = Declaration("csr", "not the real one", {})

class Angry(Twice):
    declaration = Declaration("angry", "raises an error", {"cpu": Support({"float32": (1, 1)})})

    def obstacle(self, device):
        raise OSError("no such driver")

class Late(Twice):
    @property
    def declaration(self):
        raise OSError("no such library")
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Install a distribution that offers six kernels: a good one, one whose name is taken, and four broken ones."""
    (tmp_path / "strange_kernels.py").write_text(SOURCE)
    info = tmp_path / "strange_kernels-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange-kernels\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[masksmith.kernels]\ntwice = strange_kernels:Twice\ntaken = strange_kernels:Impostor\n"
        "gone = strange_kernels:Gone\nnone = strange_kernels:SOURCE_OF_NOTHING\n"
        "late = strange_kernels:Late\nangry = strange_kernels:Angry\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("strange_kernels", None)


@pytest.mark.usefixtures("package")
def test_a_kernel_of_another_package_is_measured_like_ours():
    report = benchmark("16x16", "2:4", batches=[2], kernels=["twice"], rounds=2, curves=False)
    [result] = report.results
    assert [one.kernel for one in result.measured] == ["dense", "twice"]


@pytest.mark.usefixtures("package")
def test_broken_packages_are_kernels_that_say_why_they_cannot_run(caplog):
    kernels = all_kernels()
    assert "cannot be loaded" in kernels["gone"].obstacle("cpu")
    assert "AttributeError" in kernels["none"].obstacle("cpu")
    assert "cannot be loaded: OSError: no such library" in kernels["late"].obstacle("cpu")
    assert "has a kernel 'csr', but this name is in use" in caplog.text
    assert set(own_kernels()) <= set(kernels)


@pytest.mark.usefixtures("package")
def test_a_kernel_whose_obstacle_raises_an_error_is_skipped():
    kernels = all_kernels()
    with pytest.raises(BenchmarkError, match="'angry' cannot run on cpu here: OSError: no such driver"):
        check_runnable(["angry"], kernels, "cpu")
    assert Bench({"angry": kernels["angry"]})._obstacles == {"angry": "OSError: no such driver"}


def test_a_kernel_that_cannot_run_here_is_refused_when_named():
    with pytest.raises(BenchmarkError, match="'semi-structured-cusparselt' cannot run on cuda here: there is no CUDA"):
        check_runnable(["semi-structured-cusparselt"], own_kernels(), "cuda")
