"""What a package imports when it is loaded, its extra requires by name, in a version that has it."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INSTALLED = [
    ("wire", []),
    ("state", ["service"]),
    ("state", ["worker"]),
    ("service", ["service", "oidc", "cli"]),  # a module each that is loaded for tokens of an issuer, and for commands
    ("worker", ["worker"]),
]
"""Folders, each with extras with which its code is installed."""
PARTS = {
    "starlette": "fastapi", "anyio": "fastapi", "pydantic-core": "pydantic", "markupsafe": "jinja2", "kombu": "celery",
}  # fmt: skip
"""Distributions that another one is built on, and shows in its own interface."""


def required(extras: list[str]) -> dict[str, Requirement]:
    lines = PROJECT["dependencies"] + [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    own = [extra for line in lines if (need := Requirement(line)).name == "masksmith" for extra in need.extras]
    found = required(sorted(own)) if own else {}
    return found | {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}


def loaded_at_import(body: list[ast.stmt]) -> Iterator[str]:
    """Yield the packages that statements import, except those for type checkers and those inside functions."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.partition(".")[0]
        elif (isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test)) or isinstance(
            node, ast.ClassDef | ast.Try | ast.With
        ):
            yield from loaded_at_import(node.body)


@pytest.mark.parametrize(("folder", "extras"), INSTALLED)
def test_what_is_imported_is_required_by_name(folder, extras):
    needs, distributions = required(extras), packages_distributions()
    missing = {}
    for path in (ROOT / folder).rglob("*.py"):
        for package in loaded_at_import(ast.parse(path.read_text()).body):
            if package in sys.stdlib_module_names or package.startswith("masksmith"):
                continue
            names = {canonicalize_name(name) for name in distributions[package]}
            if not {PARTS.get(name, name) for name in names} & set(needs):
                missing.setdefault(package, str(path.relative_to(ROOT)))
    assert not missing


@pytest.mark.parametrize(
    ("extra", "name", "without"),
    [
        ("service", "fastapi", "0.140.0"),  # no `fastapi.telemetry`
        ("service", "opentelemetry-api", "1.43.0"),  # less than FastAPI requires
    ],
)
def test_a_version_that_lacks_what_is_imported_is_not_accepted(extra, name, without):
    assert not required([extra])[name].specifier.contains(without)
