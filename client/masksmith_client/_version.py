"""The distribution's version."""

from importlib.metadata import PackageNotFoundError, version


def _installed_version() -> str:
    try:
        return version("masksmith")
    except PackageNotFoundError:
        return "0+unknown"


__version__ = _installed_version()
