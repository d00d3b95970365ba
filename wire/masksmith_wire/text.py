"""Texts of unknown origin, made safe to show: names of tensors, messages of servers, URLs."""

from __future__ import annotations

import re

_AFTER_SCHEME = re.compile(r"(?<=://)[^\s'\"<>]+")
# The look ahead makes a search take time in proportion to the text: it fails at once where no parameter begins.
_SECRET_PARAMETERS = re.compile(
    r"([?&;#](?=[\w.-]*+=[^&;\s'\"<>])"
    r"(?:[\w.-]*(?:password|passwd|pwd|token|secret|signature|credential|key)[\w.-]*|sig|auth|code)=)[^&;\s'\"<>]+",
    re.IGNORECASE,
)


def printable(text: str) -> str:
    r"""Replace characters that are not printable by escapes such as `\x1b` or `\n`.

    These are control characters, which can change title, colours and clipboard of a terminal; line ends, which can
    forge lines of a log; direction marks, which reorder text; and unpaired surrogates, which cannot be encoded.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def without_credentials(text: str) -> str:
    """Replace user names, passwords, tokens and keys in all URLs of a text by `***`."""
    return _SECRET_PARAMETERS.sub(r"\1***", _AFTER_SCHEME.sub(_without_user_info, text))


def _without_user_info(match: re.Match[str]) -> str:
    user_info, at, rest = match[0].rpartition("@")
    return f"***@{rest}" if at else user_info + rest
