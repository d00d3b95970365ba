"""Check that `constraints.txt` resolves against the public package index alone, and pins every installed package.

    python scripts/check_constraints.py python3.11 python3.12 python3.13

For each interpreter pip resolves the project twice: with all extras and the group `dev`, and with the extra `demo`
alone, which must not include torch. Nothing is installed. Settings of pip that add local wheels, other indexes or other
constraints are ignored. Without arguments the script checks the supported interpreters that are on the path. The exit
code is 1 if the constraints do not resolve, and 2 if an interpreter cannot be run, or none is on the path.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
SUPPORTED = ("python3.11", "python3.12", "python3.13")
EVERYTHING = (".[all,demo,lightning,huggingface,telemetry,studies]", "--group", "dev")
DEMO = (".[demo]",)
# Settings of pip that change package sources, as in `PIP_INDEX_URL`. Settings of certificates and proxies stay.
SOURCES = (
    "CONFIG_FILE",
    "CONSTRAINT",
    "EXTRA_INDEX_URL",
    "FIND_LINKS",
    "INDEX_URL",
    "NO_INDEX",
    "PREFER_BINARY",
    "PRE",
)


def main() -> int:
    """Check every interpreter; returns 0 if all resolve, else 1; exits with 2 if one cannot be run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("interpreters", nargs="*", help="Python interpreters; default all supported ones on the path.")
    parser.add_argument("--if-reachable", action="store_true", help="Succeed if no package index is reachable.")
    arguments = parser.parse_args()
    if arguments.if_reachable and not is_index_reachable():
        print("no package index is reachable: constraints.txt was not checked")
        return 0
    interpreters = arguments.interpreters or [name for name in SUPPORTED if runs(name)]
    if not interpreters:
        parser.error(f"none of {', '.join(SUPPORTED)} is on the path; name an interpreter")
    if missing := [name for name in interpreters if not runs(name)]:
        parser.error(f"{', '.join(missing)}: no such interpreter, or it does not start")
    with ThreadPoolExecutor() as pool:
        problems = list(chain.from_iterable(pool.map(check, interpreters)))
    print("\n".join(problems) or f"constraints.txt resolves on {', '.join(interpreters)}")
    return 1 if problems else 0


def runs(interpreter: str) -> bool:
    """Whether an interpreter is installed and starts."""
    try:
        return subprocess.run([interpreter, "-c", ""], capture_output=True).returncode == 0
    except OSError:  # There is no such file, or it is not a program.
        return False


def is_index_reachable() -> bool:
    """Whether the public index answers."""
    command = [sys.executable, "-m", "pip", "index", "versions", "blake3", "--quiet"]
    return subprocess.run(command, env=environment(), capture_output=True).returncode == 0


def check(interpreter: str) -> list[str]:
    """Resolve with one interpreter; returns a list of problems."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            python = make_pip(interpreter, Path(folder))
            everything = resolve(python, EVERYTHING, Path(folder))
            demo = resolve(python, DEMO, Path(folder))
        except ResolutionError as error:
            return [f"{interpreter}: {error}"]
    problems = [f"{interpreter}: {name} is not pinned" for name in sorted(everything - pinned() - {"masksmith"})]
    if "torch" in demo:
        problems.append(f"{interpreter}: the demo installs torch")
    return problems


class ResolutionError(Exception):
    """Pip cannot be prepared, or cannot resolve the requirements; the message is that of the command that failed."""


def resolve(python: str, requirements: tuple[str, ...], folder: Path) -> set[str]:
    """Return the normalized names of all packages that pip would install.

    Raises:
        ResolutionError: If pip cannot resolve the requirements.
    """
    report = folder / "report.json"
    command = [python, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", str(report)]
    command += ["--constraint", str(CONSTRAINTS), *requirements]
    completed = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    if completed.returncode:
        raise ResolutionError(completed.stderr.strip())
    return {normalize(item["metadata"]["name"]) for item in json.loads(report.read_text())["install"]}


def make_pip(interpreter: str, folder: Path) -> str:
    """Create a virtual environment with a current pip; returns the path of its interpreter.

    Raises:
        ResolutionError: If the interpreter has no module `venv`, or pip cannot be upgraded.
    """
    python = str(folder / "venv" / "bin" / "python")
    upgrade = [python, "-m", "pip", "install", "--quiet", "--upgrade", "pip>=25.1"]
    for command in ([interpreter, "-m", "venv", str(folder / "venv")], upgrade):
        completed = subprocess.run(command, env=environment(), capture_output=True, text=True)
        if completed.returncode:
            raise ResolutionError((completed.stderr or completed.stdout).strip())
    return python


def environment() -> dict[str, str]:
    """Return this process's environment without pip's settings of package sources."""
    kept = {name: value for name, value in os.environ.items() if name not in {f"PIP_{source}" for source in SOURCES}}
    return {**kept, "PIP_CONFIG_FILE": os.devnull}


def pinned() -> set[str]:
    """Return the names of the packages that the constraints pin."""
    lines = CONSTRAINTS.read_text().splitlines()
    return {normalize(line.partition("==")[0]) for line in lines if "==" in line}


def normalize(name: str) -> str:
    """Normalize a package's name as the package index does."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
