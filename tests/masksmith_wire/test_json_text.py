"""JSON texts of others: errors are ValueErrors, whatever the text is."""

import pytest

from masksmith_wire.json_text import DuplicateMemberError, parse_json


@pytest.mark.parametrize(
    "text", ['{"größe": [1, null]}', b"\xef\xbb\xbf" + '{"größe": [1, null]}'.encode()], ids=["text", "bytes"]
)
def test_texts_and_bytes_are_parsed(text):
    assert parse_json(text) == {"größe": [1, None]}


@pytest.mark.parametrize(
    "text",
    ["", "{", b"\xff", "[" * 100_000, b'{"a":' * 100_000],
    ids=["empty", "cut", "not UTF-8", "deep list", "deep object"],
)
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_a_repeated_member_is_refused():
    with pytest.raises(DuplicateMemberError, match="the member 'a' is given twice"):
        parse_json('{"b": 1, "a": 1, "a": 2}')
