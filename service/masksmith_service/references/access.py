"""Resolves locations to paths in roots, for principals who may access them, and reads the headers of files there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from masksmith_service.auth.principal import Principal
from masksmith_service.errors import RequestError
from masksmith_service.settings import Settings
from masksmith_service.uploads.header_checks import header_error, parse_untrusted
from masksmith_state.errors import ChangedSourceError, InvalidLocationError, NoRootError
from masksmith_state.roots.root import FileState, Root
from masksmith_state.roots.roots import Roots
from masksmith_state.roots.setting import EVERY_KEY
from masksmith_wire.errors import Code
from masksmith_wire.headers import Header, HeaderError, read_header_text


@dataclass(frozen=True)
class LocatedPath:
    """The path of a file or directory in a root, relative to the root; nothing need exist there."""

    root: Root
    path: str

    @property
    def location(self) -> str:
        """The whole location, such as `s3://bucket/model/config.json`; requests and responses call it a reference."""
        return self.root.location(self.path)

    def child(self, name: str) -> LocatedPath:
        """Return the path of a file in this directory."""
        return LocatedPath(self.root, f"{self.path}/{name}" if self.path else name)

    def stat(self) -> FileState:
        """Return the state of the file.

        Raises:
            RequestError: If there is no such file.
            InvalidLocationError: If it is not a file, is in an inner root, or a link leads outside the root.
        """
        try:
            return self.root.stat(self.path)
        except FileNotFoundError:
            raise reference_not_found_error(self.location) from None

    def check_version(self, version: str) -> None:
        """Check that the file is as it was when its version was recorded.

        Raises:
            ChangedSourceError: If it is of another version, or no longer exists.
            InvalidLocationError: If it is not a file, is in an inner root, or a link leads outside the root.
        """
        try:
            current_version = self.root.stat(self.path).version
        except FileNotFoundError:
            raise self.root.missing_file_error(self.path) from None
        if current_version != version:
            raise ChangedSourceError(self.location, "it is of another version")

    def read_header(self, settings: Settings, reserve: Callable[[int], None]) -> tuple[FileState, Header]:
        """Read the state and header of a safetensors file, within the bounds of the settings.

        Args:
            settings: The bounds.
            reserve: Called with the size of the JSON header in bytes, before the header is read and parsed.

        Raises:
            RequestError: If there is no such file, it is not a safetensors file, or its header is beyond a bound.
            InvalidLocationError: If it is not a file, is in an inner root, or a link leads outside the root.
            ChangedSourceError: If the file changes while it is read.
        """
        state = self.stat()
        read = partial(self.root.read, self.path, version=state.version)
        try:
            text = read_header_text(read, state.size, settings.max_header_bytes, reserve)
            return state, parse_untrusted(text, settings, state.size)
        except HeaderError as error:
            raise header_error(error, self.location) from None


def find_readable(roots: Roots, principal: Principal, location: str) -> LocatedPath:
    """Resolve a location to a path in a root that the principal may read; the path need not exist.

    Raises:
        RequestError: If the location is malformed or in no root, or if the principal may not read that root.
    """
    return _find(roots, principal, location, "read")


def find_writable(roots: Roots, principal: Principal, location: str) -> LocatedPath:
    """Resolve a location to a path in a root that the principal may write; errors as for `find_readable`."""
    return _find(roots, principal, location, "write")


def _find(roots: Roots, principal: Principal, location: str, right: str) -> LocatedPath:
    try:
        setting, root, path = roots.find(location)
    except InvalidLocationError as error:
        raise RequestError(Code.INVALID_REFERENCE, str(error), location=error.location) from None
    except NoRootError as error:
        allowed_urls = [each.url for each in roots.settings if _has_right(principal, getattr(each, right))]
        detail = f"{error}; the roots that you may {right}: {', '.join(allowed_urls) or 'none'}"
        raise RequestError(Code.ROOT_NOT_FOUND, detail, location=error.location) from None
    if not _has_right(principal, getattr(setting, right)):
        detail = f"key {principal.name!r} may not {right} the root {root.url} (MASKSMITH_ROOTS)"
        raise RequestError(Code.FORBIDDEN, detail, location=location)
    return LocatedPath(root, path)


def _has_right(principal: Principal, keys: list[str]) -> bool:
    return principal.is_admin or not ({EVERY_KEY} | principal.names).isdisjoint(keys)


def reference_not_found_error(location: str) -> RequestError:
    """Return the error for a location where there is no file or directory."""
    return RequestError(Code.REFERENCE_NOT_FOUND, f"there is no {location!r}", location=location)
