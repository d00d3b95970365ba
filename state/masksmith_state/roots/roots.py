"""All roots of a process: finds the root that contains a location, and checks that roots and blob store are apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from masksmith_state.errors import InstallationError, NoRootError
from masksmith_wire.locations import is_in_bucket

from .bucket import BucketRoot
from .directory import DirectoryRoot
from .location import is_inside, normalise
from .root import Root
from .setting import RootSetting


class Roots:
    """The roots of `MASKSMITH_ROOTS`.

    Args:
        settings: A setting for each root.
    """

    def __init__(self, settings: Sequence[RootSetting] = ()) -> None:
        self.settings = tuple(settings)
        self._opened: dict[str, Root] = {}

    def find(self, location: str) -> tuple[RootSetting, Root, str]:
        """Find the root that a location is in; of nested roots, the innermost.

        Returns:
            The setting of the root, the root, and the location relative to the root: an empty text for the root itself.

        Raises:
            InvalidLocationError: If the location is malformed.
            NoRootError: If it is in no root.
        """
        location = normalise(location)
        containing = [setting for setting in self.settings if is_inside(location, setting.url)]
        if not containing:
            raise NoRootError(location)
        setting = max(containing, key=lambda setting: len(setting.url))
        root = self._opened.get(setting.url)
        if root is None:
            root = self._opened[setting.url] = self._open(setting.url)
        return setting, root, location[len(setting.url) + 1 :]

    def _open(self, url: str) -> Root:
        in_bucket = is_in_bucket(url)
        others = tuple(
            other.url for other in self.settings if other.url != url and is_in_bucket(other.url) == in_bucket
        )
        return BucketRoot(url, others) if in_bucket else DirectoryRoot(url, others)

    def check_apart(self, store_url: str) -> None:
        """Refuse a root that is, contains, or is inside the blob store, because retention deletes files of the store.

        Raises:
            InstallationError: If there is such a root; the message names it.
        """
        store = store_url.rstrip("/") if "://" in store_url else str(Path(store_url).resolve())
        for setting in self.settings:
            url = setting.url if is_in_bucket(setting.url) else str(Path(setting.url).resolve())
            if is_inside(store, url) or is_inside(url, store):
                raise InstallationError(
                    f"the root {setting.url} (MASKSMITH_ROOTS) and the blob store {store} (MASKSMITH_STORE_URL) "
                    "overlap, and files of the store are deleted when they expire; keep them apart"
                )
