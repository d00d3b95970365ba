"""Texts of unknown origin are shown without control characters and without credentials."""

import pytest
from hypothesis import given, strategies as st

from masksmith_wire.text import printable, without_credentials

OBEYED = {
    "a title": "\x1b]0;owned\x07", "the clipboard": "\x1b]52;c;aGk=\x07", "a colour": "\x1b[31m",
    "a C1 control": "\x9b31m",
    "a line": "a\nb", "a return": "a\rb", "a tab": "a\tb", "a bell": "\x07", "a backspace": "a\x08b", "delete": "\x7f",
    "NUL": "\0", "a direction": "\u202egnp.exe", "an isolate": "\u2066x",
    "a line separator": "a\u2028b", "nothing": "a\u200bb",
    "a surrogate": "\udc80", "a soft hyphen": "a\u00adb", "a tag": "\U000e0041", "next line": "a\x85b",
}  # fmt: skip


@pytest.mark.parametrize("text", OBEYED.values(), ids=OBEYED)
def test_no_control_character_is_left(text):
    shown = printable(text)
    assert shown.isprintable()
    assert shown != text
    shown.encode()


@given(st.text())
def test_every_text_is_printable_and_can_be_read_back(text):
    shown = printable(text)
    assert shown.isprintable()
    assert "\x1b" not in shown
    assert printable(shown) == shown


@pytest.mark.parametrize("text", ["layer.0.weight", "größe", "层", "a b", r"C:\model", "🙂"])
def test_printable_texts_are_unchanged(text):
    assert printable(text) == text


CREDENTIALS = [
    "http://ann:SECRET@host/path", "https://SECRET@host", "redis://:SECRET@host:6379/0", "rediss://u:SECRET@[::1]:1/0",
    "redis://u:a/b@SECRET@host", "unix:///run/v.sock?password=SECRET&db=0", "redis://h?db=1&password=SECRET",
    "s3://AKIA:SECRET@bucket/prefix", "https://h/b?X-Amz-Signature=SECRET", "https://h/?aws_secret_access_key=SECRET",
    "cannot connect to 'http://u:SECRET@h:1/': refused", "a http://h/ and http://u:SECRET@i/", "?token=SECRET",
    "?x=a?token=SECRET", "?keykey=SECRET",
    "x?api_key=SECRET", "https://h/?oauth2_token=SECRET", "https://h/?key1=SECRET", "https://h/?auth.token=SECRET",
    "redis+socket://:SECRET@/run/v.sock", "http://u:p%40SECRET@host",
]  # fmt: skip


@pytest.mark.parametrize("text", CREDENTIALS)
def test_no_credentials_are_left(text):
    shown = without_credentials(text)
    assert "SECRET" not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    "text", ["http://host:80/path?after=1", "mail ann@example.org", "unix:///run/v.sock?db=1", "2:4 @ w", "s3://b/p"]
)
def test_a_text_without_credentials_is_unchanged(text):
    assert without_credentials(text) == text


def test_the_text_around_credentials_is_unchanged():
    assert (
        without_credentials("no answer at http://u:p@host:1/x (refused)")
        == "no answer at http://***@host:1/x (refused)"
    )


@pytest.mark.parametrize("unit", ["?key", "key", "://", "?a-", "://u@"])
def test_a_long_text_takes_time_in_proportion_to_its_length(unit):
    """With time in proportion to the square of the length, each of these would take hours."""
    for text in ("?" + unit * 500_000, "?" + unit * 500_000 + "= "):
        assert without_credentials(text).count("***") == unit.count("@")
