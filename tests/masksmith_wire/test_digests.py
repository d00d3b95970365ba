import pytest
from blake3 import blake3

from masksmith_wire.digests import DIGESTS_KEY, digest_bytes, digest_document, digests_metadata, is_digest, read_digests
from masksmith_wire.json_text import DuplicateMemberError


def test_digests_are_blake3_in_hex():
    assert digest_bytes(b"") == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert digest_bytes(memoryview(b"masksmith")) == blake3(b"masksmith").hexdigest()


def test_documents_are_named_by_their_members_whatever_the_order():
    assert digest_document({"a": 1, "b": {"c": [1, 2], "d": None}}) == digest_document(
        {"b": {"d": None, "c": [1, 2]}, "a": 1}
    )
    assert digest_document({"a": [1, 2]}) != digest_document({"a": [2, 1]})
    assert is_digest(digest_document({}))


@pytest.mark.parametrize(
    "text", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "\u0660" * 64, "0" * 63 + "\n", "../" * 21 + "a"]
)
def test_texts_that_are_no_digest(text):
    assert not is_digest(text)


def test_digests_of_updated_weights_are_read_as_they_were_written():
    digests = {"a": [(2, "0" * 64), (1, "1" * 64)], "b": []}
    assert read_digests(digests_metadata(digests)) == digests
    assert read_digests({}) == {}


@pytest.mark.parametrize("text", ["", "[]", '{"w": 1}', '{"w": [[1]]}', "[" * 100_000])
def test_digests_of_another_form_are_refused(text):
    with pytest.raises(ValueError, match=r"Expecting|validation error|nested too deeply"):
        read_digests({DIGESTS_KEY: text})


def test_a_weight_whose_digests_are_listed_twice_is_refused():
    with pytest.raises(DuplicateMemberError, match="'w' is given twice"):
        read_digests({DIGESTS_KEY: f'{{"w": [[1, "{"0" * 64}"]], "w": []}}'})
