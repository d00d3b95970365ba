"""All roots of a process, and the one that a location is in."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
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
        settings: Their settings.
    """

    def __init__(self, settings: Sequence[RootSetting] = ()) -> None:
        self.settings = tuple(settings)

    @cached_property
    def _opened(self) -> dict[str, Root]:
        return {}

    def find(self, location: str) -> tuple[RootSetting, Root, str]:
        """Find the root that a location is in, the innermost of several.

        Returns:
            Its setting, the root, and the location relative to it, which is empty for the root itself.

        Raises:
            InvalidLocationError: If the location is malformed.
            NoRootError: If it is in no root.
        """
        location = normalise(location)
        setting = max(
            (each for each in self.settings if is_inside(location, each.url)),
            key=lambda each: len(each.url),
            default=None,
        )
        if setting is None:
            raise NoRootError(location)
        root = self._opened.setdefault(setting.url, _open(setting.url))
        return setting, root, location[len(setting.url) + 1 :]

    def check_apart(self, store_url: str) -> None:
        """Refuse a root that contains the blob store or is inside it, since blobs are swept.

        Raises:
            InstallationError: Naming it.
        """
        store = store_url.rstrip("/") if "://" in store_url else str(Path(store_url).resolve())
        for setting in self.settings:
            url = setting.url if is_in_bucket(setting.url) else str(Path(setting.url).resolve())
            if is_inside(store, url) or is_inside(url, store):
                raise InstallationError(
                    f"the root {setting.url} (MASKSMITH_ROOTS) and the blob store {store} (MASKSMITH_STORE_URL) "
                    "contain each other, and what the store contains is swept; keep them apart"
                )


def _open(url: str) -> Root:
    return BucketRoot(url) if is_in_bucket(url) else DirectoryRoot(url)
