"""The string form of patterns: `"2:4"`, `"transposable 8:16"`, `"block 32x32 50%"`, `"10%"` and so on."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, cast

from .block import Balance, Block, Norm
from .channels import Channels
from .density import from_percent
from .double_pruned import DoublePruned
from .errors import PatternError
from .hybrid import Hybrid
from .nm import NM
from .pattern import Axis, Pattern, Ragged
from .unstructured import Unstructured
from .vnm import VNM

Fields = dict[str, Any]
"""Texts of the named groups of a regular expression, in lower case; None where one is absent."""
Reader = Callable[[Fields, Axis, Ragged], Pattern]
WORDS = (
    "transposable", "block", "hybrid", "channels", "double",
    "balance", "norm", "nested", "rows", "cols", "both", "mean",
)  # fmt: skip
"""Words of the grammar that suggestions put in the place of misspelled words; `none` and the shortest are left out."""
PERCENT = r"(?P<percent>\d{1,3}(?:\.\d{1,40})?)\s*%"


def read_pattern(pattern: Pattern | str) -> Pattern:
    """Return the pattern of a string form, and a pattern as it is.

    Raises:
        PatternError: If it is neither, such as a class of patterns, or `parse` refuses the text.
    """
    if isinstance(pattern, str):
        return parse(pattern)
    if isinstance(pattern, type) or not callable(getattr(pattern, "grid", None)):
        raise PatternError(f"{pattern!r} is not a pattern; pass a text, such as '2:4', or a pattern, such as NM(2, 4)")
    return pattern


def parse(text: str, *, axis: Axis = "in", ragged: Ragged = "pad") -> Pattern:
    """Parse a pattern's string form: the inverse of `str(pattern)`, with the pattern's `axis` and `ragged`.

    Args:
        text: String form, such as `"2:4"`, `"<=2:4"`, `"transposable 8:16"`, `"transposable 8:16 x 4:8"` (in x out),
            `"block 32x32 50% balance rows norm l2"`, `"hybrid 128x128 2:4 75%"` (the share of dense blocks),
            `"channels out 50%"`, `"64:2:8"` (V:N:M), `"double 2:4"` or `"10%"`.
        axis: Dimension that plain groups run along; for `"channels 50%"`, the dimension of the channels. Other patterns
            have no axis and allow only `in`.
        ragged: Treatment of edges that no whole tile or block covers, as in `NM`; of no effect on patterns without
            tiles or blocks.

    Raises:
        PatternError: If the text is not a pattern, its numbers contradict each other, or it contradicts `axis`.
    """
    # Runs of spaces are shortened first: where several parts of a form may take spaces, the time to match grows with a
    # power of the number of spaces.
    text = " ".join(text.split())
    for form, read in _FORMS:
        match = form.fullmatch(text)
        if match is not None:
            fields = {key: None if value is None else value.lower() for key, value in match.groupdict().items()}
            return read(fields, axis, ragged)
    similar = _similar(text)
    if similar is not None:
        raise PatternError(f"{text[:80]!r} is not a pattern; did you mean {similar!r}?")
    raise PatternError(
        f"{text[:80]!r} is not a pattern; write n:m with n kept of every m, such as '2:4' or 'transposable 8:16', or "
        f"v:n:m, such as '64:2:8', or 'block 32x32 50%', 'channels out 50%', '10%' with the share kept, or "
        f"'hybrid 128x128 2:4 75%' with the share of dense blocks"
    )


def _similar(text: str) -> str | None:
    """Return a text with corrected words and separators; None if nothing was corrected, or the result is no pattern."""
    words = [_corrected(word) for word in re.sub(r"(?<=\d)\s*[;,/]\s*(?=\d)", ":", text[:80].lower()).split()]
    corrected = " ".join(words)
    if corrected == text.lower() or not any(form.fullmatch(corrected) for form, _ in _FORMS):
        return None
    return corrected


def _corrected(word: str) -> str:
    """Return the word of `WORDS` that a word resembles, or the word itself if it resembles none."""
    return next(iter(get_close_matches(word, WORDS, n=1, cutoff=0.75)), word) if word.isalpha() else word


def _read_nm(fields: Fields, axis: Axis, ragged: Ragged) -> Pattern:
    n, m = int(fields["n"]), int(fields["m"])
    n_out, m_out = (None if fields[key] is None else int(fields[key]) for key in ("n_out", "m_out"))
    if n_out is not None and not fields["transposable"]:
        raise PatternError(f"'{n}:{m} x {n_out}:{m_out}': two ratios need the word 'transposable' in front")
    return NM(
        n,
        m,
        transposable=fields["transposable"] is not None,
        fill="at_most" if fields["limit"] else "exact",
        n_out=n_out,
        m_out=m_out,
        axis=axis,
        ragged=ragged,
    )


def _read_block(fields: Fields, axis: Axis, ragged: Ragged) -> Pattern:
    block = Block(
        int(fields["rows"]),
        int(fields["cols"]),
        from_percent(fields["percent"]),
        cast("Balance", fields["balance"] or "none"),
        cast("Norm", fields["norm"] or "l1"),
        ragged,
        _read_nested(fields["nested"]),
    )
    return _without_axis(block, axis)


def _read_nested(text: str | None) -> NM | None:
    """Parse the n:m pattern nested in blocks; None if there is none."""
    nested = None if text is None else parse(text)
    if isinstance(nested, NM) or nested is None:
        return nested
    raise PatternError(f"nested {nested}: only n:m patterns can be nested in blocks")


def _read_hybrid(fields: Fields, axis: Axis, ragged: Ragged) -> Pattern:
    rows, cols, share = int(fields["rows"]), int(fields["cols"]), from_percent(fields["percent"])
    inner = parse(fields["inner"])
    if not isinstance(inner, NM):
        raise PatternError(f"hybrid of {inner}: the blocks that are not dense obey an n:m pattern, such as 2:4")
    return _without_axis(Hybrid(rows, cols, inner, share, ragged), axis)


def _read_channels(fields: Fields, axis: Axis, ragged: Ragged) -> Pattern:
    axis_in_text = fields["axis"]
    if axis == "out" and axis_in_text == "in":
        raise PatternError("'channels in' contradicts axis='out'; leave one of them out")
    return Channels(from_percent(fields["percent"]), axis_in_text or axis)


def _read_double(fields: Fields, axis: Axis, ragged: Ragged) -> Pattern:
    return _without_axis(DoublePruned(int(fields["n"]), int(fields["m"]), ragged), axis)


def _read_vnm(fields: Fields, axis: Axis, ragged: Ragged) -> Pattern:
    return _without_axis(VNM(int(fields["v"]), int(fields["n"]), int(fields["m"]), ragged), axis)


def _read_unstructured(fields: Fields, axis: Axis, ragged: Ragged) -> Pattern:
    return _without_axis(Unstructured(from_percent(fields["percent"])), axis)


def _without_axis(pattern: Pattern, axis: Axis) -> Pattern:
    """Return a pattern that has no axis, unchanged; raise `PatternError` if `axis` is not `in`."""
    if axis != "in":
        raise PatternError(f"{pattern} has no axis; leave axis at 'in'")
    return pattern


def _form(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE | re.ASCII)


_FORMS: tuple[tuple[re.Pattern[str], Reader], ...] = (
    (
        _form(
            r"(?P<transposable>transposable\s+)?(?P<limit><=\s*)?(?P<n>\d{1,6}):(?P<m>\d{1,6})"
            r"(?:\s*x\s*(?P<n_out>\d{1,6}):(?P<m_out>\d{1,6}))?"
        ),
        _read_nm,
    ),
    (
        _form(
            r"block\s+(?P<rows>\d{1,6})\s*x\s*(?P<cols>\d{1,6})\s+" + PERCENT
            + r"(?:\s+balance\s+(?P<balance>none|rows|cols|both))?(?:\s+norm\s+(?P<norm>l1|l2|max|mean))?"
            r"(?:\s+nested\s+(?P<nested>.{1,60}))?"
        ),
        _read_block,
    ),
    (
        _form(r"hybrid\s+(?P<rows>\d{1,6})\s*x\s*(?P<cols>\d{1,6})\s+(?P<inner>.{1,60}?)\s+" + PERCENT),
        _read_hybrid,
    ),
    (_form(r"(?P<v>\d{1,6}):(?P<n>\d{1,6}):(?P<m>\d{1,6})"), _read_vnm),
    (_form(r"double\s+(?P<n>\d{1,6}):(?P<m>\d{1,6})"), _read_double),
    (_form(r"channels\s+(?:(?P<axis>in|out)\s+)?" + PERCENT), _read_channels),
    (_form(PERCENT), _read_unstructured),
)  # fmt: skip
"""Regular expressions of whole texts, and the function that reads the named groups of each."""
