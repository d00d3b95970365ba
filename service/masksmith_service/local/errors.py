"""Errors whose messages are shown to the user.

The command line prints the message and exits with the attribute `exit_code`. It checks for this attribute only, because
the client must not import the service.
"""

from __future__ import annotations


class UsageError(Exception):
    """An option, setting or directory cannot be used; the message names it."""

    exit_code = 2


class FailedError(Exception):
    """An operation failed although the options are valid, for example because a server does not respond."""

    exit_code = 1
