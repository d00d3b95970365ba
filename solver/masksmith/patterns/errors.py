"""Errors that need nothing but the standard library."""


class MasksmithError(Exception):
    """Base of every error that masksmith raises on purpose."""


class PatternError(MasksmithError, ValueError):
    """The pattern is malformed, or no mask of it fits the shape; the message says which value is at fault."""
