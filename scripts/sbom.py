"""Write a bill of materials of this environment: all installed distributions, in CycloneDX 1.5 (JSON).

    python scripts/sbom.py > sbom.json

Names, versions and licenses are those of the installed metadata. A distribution whose metadata has no name or no
version, as after an installation that broke off, is named on stderr and left out. For an image:
`docker run --rm -i IMAGE python - < scripts/sbom.py`.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import Distribution, distributions
from typing import Any


def component(distribution: Distribution) -> dict[str, Any]:
    """Describe a distribution as a component of CycloneDX."""
    metadata = distribution.metadata
    name, version = re.sub(r"[-_.]+", "-", metadata["Name"]).lower(), distribution.version
    description: dict[str, Any] = {
        "type": "library",
        "bom-ref": f"pkg:pypi/{name}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version}",
    }
    license_name = metadata.get("License-Expression") or metadata.get("License") or ""
    # Some distributions have the whole text of the license in this field.
    if license_name and "\n" not in license_name and len(license_name) < 200:
        description["licenses"] = [{"license": {"name": license_name}}]
    return description


def bill() -> dict[str, Any]:
    """Return the bill of materials, sorted by name; a distribution that is found twice is listed once."""
    complete = []
    for distribution in distributions():
        if distribution.metadata["Name"] and distribution.metadata["Version"]:
            complete.append(distribution)
        else:
            sys.stderr.write(f"left out: {distribution.locate_file('')}: a distribution without name or version\n")
    components = {description["bom-ref"]: description for description in map(component, complete)}
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
