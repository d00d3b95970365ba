"""Every public function of every kernel module is called by a test of its own."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[3]
KERNELS = ROOT / "solver/masksmith/kernels"
TESTS = [
    *(ROOT / "tests/masksmith/kernels").rglob("test_*.py"),
    ROOT / "tests/masksmith/benchmark/test_gather_kernel.py",
]
NO_KERNELS = {"jit.py", "__init__.py"}
CONSTANTS = {"constant", "constant64", "index", "element_bytes"}
"""Functions that only make constants of LLVM types."""


def public_functions(path: Path) -> set[str]:
    """Names of the public functions of a module, without those that emit single instructions for the others."""
    nodes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    emitting = {node.name for node in nodes if node.args.args[:1] and node.args.args[0].arg in ("builder", "context")}
    return {node.name for node in nodes if not node.name.startswith("_")} - emitting - CONSTANTS


def imported_names() -> dict[str, set[str]]:
    """The names that tests import from each module; of a module imported as a whole, the attributes that they use."""
    names = defaultdict(set)
    for path in TESTS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names[node.module] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "vectors":
                names["masksmith.kernels.dual_ascent.simd.vectors"].add(node.attr)
    return names


def test_every_kernel_is_tested():
    modules = [path for path in sorted(KERNELS.rglob("*.py")) if path.name not in NO_KERNELS]
    names = {path: ".".join(path.relative_to(ROOT / "solver").with_suffix("").parts) for path in modules}
    tested = imported_names()
    assert sum(len(public_functions(path)) for path in modules) > 50
    assert {names[path]: missing for path in modules if (missing := public_functions(path) - tested[names[path]])} == {}
