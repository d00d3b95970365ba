"""What processes import: some packages are kept from them, as if not installed; all names are written down.

Python imports this module by itself wherever its folder stands on PYTHONPATH. `ABSENT_PACKAGES` names the packages,
separated by commas; in the folder `IMPORTS_FOLDER` each process writes a file named by its id.
"""

import os
import sys
from importlib.machinery import PathFinder

ABSENT = frozenset(os.environ.get("ABSENT_PACKAGES", "").split(","))
FOLDER = os.environ.get("IMPORTS_FOLDER")


class ObservedFinder:
    """Finds what Python's own finder does, but for the absent packages."""

    def find_spec(self, name, path=None, target=None):
        if FOLDER:
            with open(os.path.join(FOLDER, str(os.getpid())), "a") as file:
                file.write(f"{name}\n")
        return None if name.partition(".")[0] in ABSENT else PathFinder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(PathFinder, name)


sys.meta_path[sys.meta_path.index(PathFinder)] = ObservedFinder()
