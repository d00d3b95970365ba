"""Who may import what: read from the sources, proved by importing, linted."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("solver", "wire", "state", "service", "worker", "client")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

CELERY = {
    "service/masksmith_service/jobs/queue.py",
    "worker/masksmith_worker/app.py",
    "worker/masksmith_worker/tasks.py",
}
WITHOUT_CIRCLES = [
    "masksmith",
    "masksmith_wire",
    "masksmith_state",
    "masksmith_service",
    "masksmith_worker",
    "masksmith_client",
]
SETTINGS = {
    "client/masksmith_client/transport/settings.py",
    "service/masksmith_service/local/settings.py",
    "service/masksmith_service/settings.py",
    "state/masksmith_state/settings.py",
    "worker/masksmith_worker/settings.py",
}


@cache
def tree(path):
    return ast.parse(path.read_text())


@cache
def imported(path):
    """The modules that a file imports by absolute name, anywhere in it."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
    return found


def importers(library):
    """The files that import a library."""
    return {
        str(path.relative_to(ROOT))
        for path in FILES
        if any(name == library or name.startswith(f"{library}.") for name in imported(path))
    }


def loaded_by(module):
    """The top-level modules, and those of masksmith, that importing a module loads."""
    code = f"import sys, {module}; print(*sys.modules)"
    # -I -S would hide the packages; -P keeps the folder at hand out of the way.
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def circle(package):
    """A circle of modules of a package that import each other, for types or inside functions too; empty without one."""
    graph = grimp.build_graph(package, cache_dir=None)
    try:
        TopologicalSorter({name: graph.find_modules_directly_imported_by(name) for name in graph.modules}).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.mark.parametrize("package", WITHOUT_CIRCLES)
def test_no_modules_import_each_other_in_a_circle(package):
    assert circle(package) == []


CIRCULAR = {
    "top": "from .first import A",
    "types": "if TYPE_CHECKING:\n    from circular_types.first import A",
    "function": "def f():\n    from . import first",
}


@pytest.mark.parametrize("place", CIRCULAR)
def test_a_circle_is_seen_wherever_its_imports_stand(place, tmp_path, monkeypatch):
    package = tmp_path / f"circular_{place}"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "first.py").write_text("from .second import B\n")
    (package / "second.py").write_text(f"from typing import TYPE_CHECKING\n{CIRCULAR[place]}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert set(circle(package.name)) == {f"{package.name}.first", f"{package.name}.second"}


@pytest.mark.parametrize("module", ["masksmith.patterns", "masksmith.layouts"])
def test_patterns_and_layouts_cost_nothing_but_the_standard_library(module):
    loaded = {name.partition(".")[0] for name in loaded_by(module)}
    assert loaded & {"numpy", "torch", "numba", "ortools", "loky", "pydantic", "scipy"} == set()


@pytest.mark.parametrize(
    "module",
    ["masksmith_wire.documents", "masksmith_state.jobs.shards", "masksmith_service.app", "masksmith_client"],
)
def test_only_the_worker_pays_for_the_solver(module):
    loaded = loaded_by(module) - {"masksmith._lazy"}
    assert not {"torch", "numba", "ortools", "loky"} & loaded
    assert not [name for name in loaded if name.startswith(("masksmith.solvers", "masksmith.kernels", "masksmith._"))]


def test_kernels_are_declared_without_loading_what_runs_them():
    code = "import sys; from masksmith.benchmark import own_kernels, plan, Report; own_kernels(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numba", "ortools", "scipy", "masksmith._solve"} & set(done.stdout.split())


def test_the_library_knows_nothing_of_the_network():
    loaded = loaded_by("masksmith._solve")
    assert not {"pydantic", "fastapi", "celery", "redis", "httpx2", "obstore", "masksmith_wire"} & loaded


def test_celery_is_met_in_few_modules():
    assert importers("celery") == CELERY


def test_numba_has_one_door_a_device():
    assert importers("numba") == {"solver/masksmith/kernels/jit.py", "solver/masksmith/cuda/jit.py"}


def test_loky_runs_panels_and_nothing_else():
    assert importers("loky") == {"solver/masksmith/_engine/process_pool.py"}


def test_ortools_stays_in_the_solver():
    assert {path.partition("/")[0] for path in importers("ortools")} == {"solver"}


def test_torch_stays_in_the_solver_in_training_loops_and_in_tracing():
    elsewhere = {path for path in importers("torch") if not path.startswith("solver/")}
    assert elsewhere
    rooms = tuple(
        f"client/masksmith_client/{room}" for room in ("training/", "checkpoints/tracing/", "cli/block_prune/")
    )
    assert all(path.startswith(rooms) for path in elsewhere)


def test_the_process_that_asks_for_masks_loads_no_torch():
    assert not {"torch", "numba", "ortools", "loky"} & loaded_by("masksmith_client.training.refresh_worker.__main__")


@pytest.mark.parametrize("kernel", ["tiles", "tiles_simd", "rows"])
def test_the_certificate_shares_no_code_with_solvers(kernel):
    path = ROOT / f"solver/masksmith/kernels/certificate/{kernel}.py"
    assert not [node for node in tree(path).body if isinstance(node, ast.ImportFrom) and node.level]
    assert {name for name in imported(path) if "masksmith" in name} == {"masksmith._panels", "masksmith.kernels.jit"}


def test_only_settings_read_the_environment():
    readers = set()
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "putenv"):
                readers.add(str(path.relative_to(ROOT)))
            if isinstance(node, ast.ImportFrom) and node.module == "os":
                assert not {alias.name for alias in node.names} & {"environ", "environb", "getenv", "putenv"}
    assert readers <= SETTINGS


def test_the_contracts_are_kept():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
