"""Look up known vulnerabilities of everything that `constraints.txt` pins, with pip-audit.

    python scripts/audit.py

pip-audit is installed into `.venv-audit`, so that it is no dependency of ours. Exit code 1 if a pinned version is
vulnerable. Where no package index or no advisory database can be reached, nothing is audited, and that is printed: exit
code 0.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".venv-audit"
TOOL = "pip-audit==2.10.1"


def install() -> Path | None:
    """Install pip-audit; None if no package index can be reached."""
    tool = FOLDER / "bin" / "pip-audit"
    if not tool.exists():
        venv.create(FOLDER, with_pip=True)
        pip = [FOLDER / "bin" / "python", "-m", "pip", "install", "--quiet", "--retries", "1", TOOL]
        if subprocess.run(pip, capture_output=True, check=False).returncode:
            return None
    return tool


def report(output: str, errors: str) -> int:
    """Print the vulnerabilities that pip-audit reports; returns the exit code."""
    try:
        dependencies = json.loads(output)["dependencies"]
    except (ValueError, KeyError):
        lines = errors.strip().splitlines() or [""]
        print(f"not audited: {lines[-1][:300]}")
        return 0
    vulnerable = [each for each in dependencies if each.get("vulns")]
    for each in vulnerable:
        for vulnerability in each["vulns"]:
            fixed = ", ".join(vulnerability["fix_versions"]) or "no version"
            print(f"{each['name']} {each['version']}: {vulnerability['id']}, fixed in {fixed}")
    if not vulnerable:
        print(f"no known vulnerability in {len(dependencies)} distributions")
    return int(bool(vulnerable))


def main() -> int:
    """Audit; returns the exit code."""
    tool = install()
    if tool is None:
        print("not audited: no package index is in reach")
        return 0
    command = [tool, "--requirement", ROOT / "constraints.txt", "--no-deps", "--disable-pip", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return report(done.stdout, done.stderr)


if __name__ == "__main__":
    sys.exit(main())
