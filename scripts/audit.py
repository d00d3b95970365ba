"""Look up known vulnerabilities of everything that `constraints.txt` pins, with pip-audit.

    python scripts/audit.py

pip-audit is installed into `.venv-audit`, so that the project does not depend on it. Exit code 1 if a pinned version is
vulnerable, and 2 if `constraints.txt` cannot be read. If pip-audit cannot be installed, or gives no report because the
advisory database cannot be reached, the script prints that nothing is audited, and the exit code is 0.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".venv-audit"
TOOL = "pip-audit==2.10.1"


def install() -> Path | None:
    """Install pip-audit and return its path; None if the installation fails, as without a package index."""
    tool = FOLDER / "bin" / "pip-audit"
    if not tool.exists():
        pip = [FOLDER / "bin" / "python", "-m", "pip", "install", "--quiet", "--retries", "1", TOOL]
        try:
            venv.create(FOLDER, with_pip=True)
            subprocess.run(pip, capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
    return tool


def report(output: str, errors: str) -> int:
    """Print the vulnerabilities that pip-audit reports; returns the exit code.

    Args:
        output: The report, as JSON; anything else means that nothing was audited.
        errors: Error messages of pip-audit; if nothing was audited, their last line is printed.
    """
    try:
        dependencies = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        lines = errors.strip().splitlines() or [""]
        print(f"not audited: {lines[-1][:300]}")
        return 0
    vulnerable = [dependency for dependency in dependencies if dependency.get("vulns")]
    for dependency in vulnerable:
        for vulnerability in dependency["vulns"]:
            fix_versions = ", ".join(vulnerability["fix_versions"]) or "no version"
            print(f"{dependency['name']} {dependency['version']}: {vulnerability['id']}, fixed in {fix_versions}")
    if not vulnerable:
        print(f"no known vulnerability in {len(dependencies)} distributions")
    return int(bool(vulnerable))


def main() -> int:
    """Audit `constraints.txt`; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    constraints = ROOT / "constraints.txt"
    try:
        constraints.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        sys.stderr.write(f"not audited: {constraints} cannot be read: {error}\n")
        return 2
    tool = install()
    if tool is None:
        print("not audited: pip-audit cannot be installed; is a package index reachable?")
        return 0
    command = [tool, "--requirement", constraints, "--no-deps", "--disable-pip", "--format", "json"]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    return report(completed.stdout, completed.stderr)


if __name__ == "__main__":
    sys.exit(main())
