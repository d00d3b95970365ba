"""Texts of unknown origin, made safe to show: names of tensors, messages of servers, URLs."""

from __future__ import annotations

import re

_USER_INFO = re.compile(r"(?<=://)[^\s'\"<>]*@")
_SECRET_PARAMETERS = re.compile(
    r"([?&;#](?:[\w.-]*(?:password|passwd|pwd|token|secret|signature|credential|key)[\w.-]*|sig|auth|code)=)[^&;\s'\"<>]+",
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
    return _SECRET_PARAMETERS.sub(r"\1***", _USER_INFO.sub("***@", text))
