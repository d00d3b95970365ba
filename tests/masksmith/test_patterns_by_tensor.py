"""Patterns by tensor: which pattern a full name, a glob or a part of a name gives a tensor."""

import pytest

from masksmith.patterns import NM, PatternError, TensorPatterns, parse

NAMES = ["a.mlp.up.weight", "a.mlp.down.weight", "a.attn.q.weight", "mlp"]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["2:4"], ["2:4", "2:4", "2:4", "2:4"]),
        (["<=2:4"], ["<=2:4"] * 4),
        (["attn=2:4"], [None, None, "2:4", None]),
        (["attn=<=2:4"], [None, None, "<=2:4", None]),
        (["mlp=2:4"], [None, None, None, "2:4"]),  # a full name counts before a part
        (["1:4", "attn.q=2:4"], ["1:4", "1:4", "2:4", "1:4"]),
        (["1:4", "*.weight=4:8", "attn=2:4", "a.mlp.up.weight=2:8"], ["2:8", "4:8", "4:8", "1:4"]),
        (["*.weight=4:8", "a.*=2:4"], ["2:4", "2:4", "2:4", None]),
        (["*=1:4", "attn=2:4"], ["1:4", "1:4", "2:4", "1:4"]),  # `*` is the default
    ],
)
def test_a_pattern_for_each_tensor(texts: list[str], expected: list[str | None]) -> None:
    assigned = TensorPatterns.parse(texts).assign(NAMES)
    assert [str(assigned[name]) if name in assigned else None for name in NAMES] == expected


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["2:4", "1:4"], "another pattern"),
        (["2:4", "*=1:4"], "another pattern"),
        (["x=2:4"], "'x'"),
        (["a=17:16"], "17:16"),
        (["at=2:4"], "'at'"),
        (["mlp="], "'mlp=' is not SELECTOR=PATTERN"),
        (["=2:4"], "'=2:4' is not SELECTOR=PATTERN"),
        ([], "no pattern"),
    ],
)
def test_patterns_for_nothing_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(PatternError, match=message):
        TensorPatterns.parse(texts).assign(NAMES)


def test_patterns_are_taken_as_texts_objects_and_mappings() -> None:
    own = NM(2, 4, axis="out")
    assert (
        TensorPatterns.of("2:4", "out")
        == TensorPatterns(own)
        == TensorPatterns.of(own)
        == TensorPatterns.of(["2:4"], "out")
    )
    mixed = TensorPatterns.of({"*.weight": "4:8", "attn": own})
    assert mixed == TensorPatterns(None, {"*.weight": parse("4:8"), "attn": own})
    assert mixed.first == parse("4:8")
    assert not mixed.is_single
    assert str(TensorPatterns.of(["2:4", "mlp=4:8"])) == "2:4, mlp=4:8"
    assert TensorPatterns.of({"attn": own, "*": "4:8"}) == TensorPatterns(parse("4:8"), {"attn": own})
    with pytest.raises(PatternError, match="no pattern"):
        TensorPatterns.of({})


def test_a_selector_may_contain_an_equals_sign() -> None:
    patterns = TensorPatterns.parse(["x=y.weight=2:4", "a=b = <= 1:4", "<= 4:8"])
    assert {name: str(pattern) for name, pattern in patterns.rules.items()} == {"x=y.weight": "2:4", "a=b": "<=1:4"}
    assert str(patterns.default) == "<=4:8"
