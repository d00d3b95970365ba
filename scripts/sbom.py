"""Write a bill of materials of this environment: all installed distributions, in CycloneDX 1.5 (JSON).

    python scripts/sbom.py > sbom.json

Names, versions and licenses are those of the installed metadata. For an image:
`docker run --rm -i IMAGE python - < scripts/sbom.py`.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import Distribution, distributions
from typing import Any


def component(distribution: Distribution) -> dict[str, Any]:
    """Describe a distribution."""
    metadata = distribution.metadata
    name, version = re.sub(r"[-_.]+", "-", metadata["Name"]).lower(), distribution.version
    description: dict[str, Any] = {
        "type": "library",
        "bom-ref": f"pkg:pypi/{name}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version}",
    }
    text = metadata.get("License-Expression") or metadata.get("License") or ""
    if text and "\n" not in text and len(text) < 200:
        description["licenses"] = [{"license": {"name": text}}]
    return description


def bill() -> dict[str, Any]:
    """Describe all distributions, by name."""
    components = {each["bom-ref"]: each for each in map(component, distributions())}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "masksmith"}},
        "components": [components[ref] for ref in sorted(components)],
    }


if __name__ == "__main__":
    json.dump(bill(), sys.stdout, indent=1)
    sys.stdout.write("\n")
