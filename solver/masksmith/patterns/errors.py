"""Errors that need nothing but the standard library."""


class MasksmithError(Exception):
    """Base of every error that masksmith raises on purpose."""


class PatternError(MasksmithError, ValueError):
    """The pattern is malformed, or no mask of it fits the shape; the message says which value is at fault."""


class MissingExtraError(MasksmithError, ModuleNotFoundError):
    """What was called needs a package that is not installed; the message has the line that installs it.

    Attributes:
        name: The module that is missing.
        extra: The extra of the distribution that installs it.
    """

    def __init__(self, what: str, module: str, extra: str) -> None:
        super().__init__(f"{what} needs {module}: pip install 'masksmith[{extra}]'", name=module)
        self.extra = extra
