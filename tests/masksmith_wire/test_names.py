import pytest
from pydantic import ValidationError

from masksmith_wire.names import (
    MAX_LABELS,
    MAX_NAME_LENGTH,
    JobDescription,
    default_name,
    parse_labels,
    replace_unprintable,
    subject_of,
)


@pytest.mark.parametrize("name", ["llama, 2:4", "模型 ä", "a" * MAX_NAME_LENGTH, "  kept without blanks  "])
def test_names(name):
    assert JobDescription(name=name).name == name.strip()


@pytest.mark.parametrize(
    "name", ["", "   ", "a" * (MAX_NAME_LENGTH + 1), "a\x1b[2Jb", "a\nb", "a\u202eb", "a\u2028b", "\x00"]
)
def test_refused_names(name):
    with pytest.raises(ValidationError):
        JobDescription(name=name)


@pytest.mark.parametrize(
    "labels",
    [
        {"": "a"}, {"a b": "c"}, {"-a": "b"}, {"a" * 64: "b"}, {"a": "b" * 101}, {"a": "\x1b[2J"}, {"a\n": "b"},
        {f"k{n}": "" for n in range(MAX_LABELS + 1)},
    ],
)  # fmt: skip
def test_refused_labels(labels):
    with pytest.raises(ValidationError):
        JobDescription(labels=labels)


def test_labels_are_parsed():
    labels = parse_labels(["team=vision", "a.b/c=x=y", "empty="])
    assert JobDescription(labels=labels).labels == {"team": "vision", "a.b/c": "x=y", "empty": ""}
    for texts in (["team"], ["=x"], ["a=1", "a=2"]):
        with pytest.raises(ValueError, match="label"):
            parse_labels(texts)
    with pytest.raises(ValueError, match="'team' is not KEY=VALUE"):
        parse_labels(["team=a", "team"])


@pytest.mark.parametrize(
    ("subject", "pattern", "name"),
    [
        ("model.safetensors", "2:4", "model.safetensors, 2:4"),
        ("", "2:4", "2:4"),
        ("a\x1b[2J\ud800", "2:4", "a\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}, 2:4"),
        ("", "", "unnamed"),
    ],
)
def test_default_names(subject, pattern, name):
    assert default_name(subject, pattern) == name
    assert JobDescription(name=name).name == name


def test_long_default_names_are_names():
    name = default_name("a" * 1000, "b" * 1000)
    assert JobDescription(name=name).name == name
    assert "a" * 90 in name
    assert "b" * 90 in name


def test_subjects():
    assert subject_of(["encoder"]) == "encoder"
    assert subject_of(["a", "b"]) == "2 tensors"


def test_unprintable_characters_are_replaced():
    assert replace_unprintable("ä 2:4") == "ä 2:4"
    assert replace_unprintable("a\tb\x9b") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"
