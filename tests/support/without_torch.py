"""Which tests need torch: where it is not installed `tests/conftest.py` leaves them out, and prints which.

A file needs torch if it, a `conftest.py` above it, or a module of `tests/support` that one of them imports, imports one
of `NEEDS_TORCH` anywhere. A test that needs torch without such an import has the marker `torch`.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

TESTS = Path(__file__).parents[1]
NEEDS_TORCH = (
    "torch",
    "lightning",
    "transformers",
    "accelerate",
    "safetensors.torch",
    "masksmith_client.training",
    "masksmith.benchmark.benchmark",
    "masksmith.model_pruning",
    "masksmith.updates",
)
INSTALLED = find_spec("torch") is not None


def is_left_out(path: Path) -> bool:
    """Whether torch is missing and a test file, or a folder's `conftest.py`, needs it."""
    file = path / "conftest.py" if path.is_dir() else path
    return not INSTALLED and file.suffix == ".py" and file.is_file() and imports_torch(file)


def left_out(paths: list[Path]) -> list[Path]:
    """Return all test files at or below `paths` that are left out."""
    files = {file for path in paths for file in ([path] if path.is_file() else path.rglob("test_*.py"))}
    return sorted(file for file in files if any(map(is_left_out, (file, *file.parents))))


@cache
def imports_torch(path: Path) -> bool:
    """Whether a file, or a module of `tests/support` that it imports, imports what needs torch."""
    return any(_needs_torch(name) for name in _imported(path))


def _needs_torch(name: str) -> bool:
    if name.startswith("support."):
        return imports_torch(TESTS / "support" / f"{name.split('.')[1]}.py")
    return any(name == module or name.startswith(f"{module}.") for module in NEEDS_TORCH)


def _imported(path: Path) -> set[str]:
    """Return the full names of all modules, and of names in modules, that a file imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names
