"""What is shipped: a wheel and a source archive that hold everything, and install only what is asked for."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSION = "0.1.0"
NAMES = ("wire", "state", "service", "worker", "client")
PACKAGES = {"solver": "masksmith"} | {name: f"masksmith_{name}" for name in NAMES}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel, made from the source archive, as an index would serve them."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, ROOT], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


def test_the_wheel_holds_all_packages_and_all_their_files(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folders = {f"{folder}/{package}/" for folder, package in PACKAGES.items()}
    wanted = {path.split("/", 1)[1] for path in listed.split() if path.startswith(tuple(folders))}
    assert len(wanted) > 200
    assert wanted <= names
    assert {path.partition("/")[2] for path in listed.split() if path.endswith(".lua")} <= names
    assert "masksmith_state/jobs/lua/_prelude.lua" in names
    assert {f"{package}/py.typed" for package in PACKAGES.values()} <= names
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "docs"))]


def test_the_source_archive_holds_what_a_reader_needs(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", "constraints.txt"} <= names


def test_its_metadata_names_every_extra(wheel):
    with zipfile.ZipFile(wheel) as archive:
        metadata = message_from_bytes(archive.read(f"masksmith-{VERSION}.dist-info/METADATA"))
        scripts = archive.read(f"masksmith-{VERSION}.dist-info/entry_points.txt").decode()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(metadata.get_all("Provides-Extra")) == set(extras)
    base = [need for need in metadata.get_all("Requires-Dist") if "extra ==" not in need]
    assert not [need for need in base if need.startswith(("torch", "numba", "ortools", "fastapi", "celery"))]
    assert "masksmith = masksmith_client.cli:main" in scripts


@pytest.mark.slow
def test_the_thin_client_installs_without_torch(wheel, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "thin"], check=True)
    python = tmp_path / "thin" / "bin" / "python"
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *constraints, f"{wheel}[cli]"], check=True)
    script = (
        "import masksmith_client, importlib.util as u; assert not any(map(u.find_spec, ('torch', 'numba', 'fastapi')))"
    )
    subprocess.run([python, "-W", "error", "-c", script], check=True, cwd=tmp_path)
    shown = subprocess.run([python.with_name("masksmith"), "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["masksmith", VERSION]
    helped = subprocess.run(
        [python.with_name("masksmith"), "--show-completion", "bash"], capture_output=True, text=True
    )
    assert "masksmith" in helped.stdout
