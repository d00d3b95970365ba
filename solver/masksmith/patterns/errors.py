"""Base class of all errors, and errors of patterns. Standard library only."""


class MasksmithError(Exception):
    """Base class of all errors that masksmith raises."""


class PatternError(MasksmithError, ValueError):
    """The pattern is malformed, or does not fit the shape; the message names the invalid value."""
