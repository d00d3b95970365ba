"""Errors that are messages for the user.

The command line prints such an error as one line, and exits with its attribute `exit_code`. That attribute is the whole
contract: client and service import nothing of each other.
"""

from __future__ import annotations


class UsageError(Exception):
    """An option, a setting or a directory cannot be used; the message names it."""

    exit_code = 2


class FailedError(Exception):
    """Something did not work although the options are right, such as a server that does not answer."""

    exit_code = 1
