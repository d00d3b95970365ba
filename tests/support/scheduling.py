"""How the suite's files are spread over its test processes."""

from xdist.scheduler import LoadFileScheduling

SHARED = ("tests/faults/", "tests/end_to_end/browser/")
"""Folders whose files need the same installation or browser: one process starts it and runs all of them."""


class InstallationScheduling(LoadFileScheduling):
    """One process runs all tests of a file, and all files of a folder of `SHARED`."""

    def _split_scope(self, nodeid):
        return next((folder for folder in SHARED if nodeid.startswith(folder)), super()._split_scope(nodeid))
