"""How the suite's files are spread over its test processes."""

from xdist.scheduler import LoadFileScheduling

SHARED = ("tests/end_to_end/", "tests/faults/")
"""Folders whose files need the same installation: one process starts it and runs all of them."""


def longest_first(items):
    """Put the folders of `SHARED` first: each takes one process for long, in which the others run the files."""
    items.sort(key=lambda item: _shared(item.nodeid) is None)


def _shared(nodeid):
    return next((folder for folder in SHARED if nodeid.startswith(folder)), None)


class InstallationScheduling(LoadFileScheduling):
    """One process runs all tests of a file, and all files of a folder of `SHARED`."""

    def _split_scope(self, nodeid):
        return _shared(nodeid) or super()._split_scope(nodeid)
