"""Base class of all errors, and errors of patterns. Standard library only."""


class MasksmithError(Exception):
    """Base class of all errors that masksmith raises."""


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
