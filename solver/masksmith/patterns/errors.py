"""Base class of all errors, and errors of patterns. Standard library only."""

from __future__ import annotations

from typing import Any


class MasksmithError(Exception):
    """Base class of all errors that masksmith raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy or pickle the error by its message and attributes: `__init__` of a subclass may take other arguments."""
        return _restore, (type(self), self.args), *super().__reduce__()[2:]


class PatternError(MasksmithError, ValueError):
    """The pattern is malformed, or does not fit the shape; the message names the invalid value."""


class MissingExtraError(MasksmithError, ModuleNotFoundError):
    """A package is not installed; the message has the command that installs it.

    Attributes:
        name: The missing module.
        extra: The extra of the distribution that installs it.
    """

    def __init__(self, what: str, module: str, extra: str) -> None:
        super().__init__(f"{what} needs {module}: pip install 'masksmith[{extra}]'", name=module)
        self.extra = extra


def _restore(error_type: type[MasksmithError], args: tuple[Any, ...]) -> MasksmithError:
    """Return an error with the message of a copied one; its attributes are added by pickle."""
    error = error_type.__new__(error_type)
    super(MasksmithError, error).__init__(*args)
    return error
