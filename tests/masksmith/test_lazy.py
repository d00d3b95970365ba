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
    ("name", "extra"),
    [
        ("masksmith.solve", "solver"),
        ("masksmith.adapters.MaskPruning", "solver"),
        ("masksmith.benchmark.Bench", "bench"),
        ("masksmith.calibration.calibrate", "solver"),
        ("masksmith_client.training.Sparsifier", "train"),
    ],
)
def test_what_is_missing_is_named_with_the_extra_that_brings_it(name, extra):
    package = name.rpartition(".")[0]
    code = f"""
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "numba"):
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Without())
import {package}
{name}
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].startswith(f"ModuleNotFoundError: {name} needs ")
    assert done.stderr.rstrip().endswith(f": pip install 'masksmith[{extra}]'")
