"""Which tensors are selected, by a table of names, globs, dtypes and shapes against a plain reading of the rules."""

import itertools
from fnmatch import fnmatchcase

import pytest

from masksmith.layouts import (
    FLOAT_DTYPES,
    ITEM_BYTES,
    Candidate,
    SelectionError,
    check_rules_apply,
    select,
    whole_tensor_needed_by,
)  # fmt: skip
from masksmith.patterns import PatternError, TensorPatterns, parse
from masksmith.patterns.matching import NameMatcher, matches

PATTERN = parse("2:4")
NAMES = ["a[0]", "a0", "a*", "ab", "q?", "qx", "[", "A0"]
TEXTS = [*NAMES, "a[[]0]", "a?", "*", "[a]*", "[!a]*", "zzz", "z*", "", "[z"]


def expected_names(texts, names):
    """A text that is a name means that name alone; any other is a glob."""
    return [
        name
        for name in names
        if any(name == text if text in names else fnmatchcase(name, text) for text in texts)
    ]  # fmt: skip


def candidates(names=NAMES, shape=(8, 8), dtype="F32"):
    return [Candidate(name, shape, dtype) for name in names]


@pytest.mark.parametrize("texts", [(), *((text,) for text in TEXTS), *itertools.combinations(TEXTS, 2)], ids=str)
def test_names_match_exactly_first_and_then_as_globs(texts):
    names = NameMatcher(list(texts), NAMES)
    assert [name for name in NAMES if names.match(name)] == expected_names(texts, NAMES)
    assert [name for name in NAMES if names.has_exact(name)] == [name for name in NAMES if name in texts]
    assert names.unmatched == [text for text in texts if not expected_names([text], NAMES)]


@pytest.mark.parametrize(
    ("name", "text", "is_match"), [("w[0]", "w[0]", True), ("w0", "w[0]", True), ("W", "w", False)]
)
def test_where_other_names_are_not_known_a_text_is_both(name, text, is_match):
    assert matches(name, text) is is_match


@pytest.mark.parametrize("layers", [None, "*", "a*", ["a[0]", "q?"], "[!a]*"], ids=str)
@pytest.mark.parametrize("exclude", [None, "a[0]", "a?", ["a*", "["], "[z]*", "nothing"], ids=str)
def test_layers_select_and_exclude_has_the_last_word(layers, exclude):
    wanted, unwanted = ([texts] if isinstance(texts, str) else texts or [] for texts in (layers, exclude))
    unmatched = [text for text in [*wanted, *unwanted] if not expected_names([text], NAMES)]
    if unmatched:
        with pytest.raises(SelectionError, match="no tensor is called") as caught:
            select(candidates(), PATTERN, layers, exclude)
        assert (caught.value.kind, caught.value.name, caught.value.available) == ("unmatched", unmatched[0], NAMES)
        return
    out = expected_names(unwanted, NAMES)
    chosen = [name for name in (expected_names(wanted, NAMES) if wanted else NAMES) if name not in out]
    if not chosen:
        with pytest.raises(SelectionError, match="can be masked"):
            select(candidates(), PATTERN, layers, exclude)
        return
    selection = select(candidates(), PATTERN, layers, exclude)
    assert selection.chosen == chosen
    assert selection.named == {name for name in chosen if name in wanted}
    assert selection.skipped == {
        name: "excluded" if name in out else "not selected" for name in NAMES if name not in chosen
    }


DTYPES = [*ITEM_BYTES, "I64", "BOOL", "F8_E4M3"]
SHAPES = [(8, 8), (4, 4, 3, 3), (8,), (2, 2, 2, 2, 2), (0, 8), ()]


@pytest.mark.parametrize("how", [None, "w*", "w"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dtypes_and_shapes(dtype, shape, how):
    dtypes = set(ITEM_BYTES) if how == "w" else FLOAT_DTYPES
    fits = dtype in dtypes and shape in SHAPES[:2]
    tensors = [Candidate("fine", (4, 4), "F32"), Candidate("w", shape, dtype)]
    layers = how and ["fine", how]
    if how == "w" and not fits:
        with pytest.raises(SelectionError, match="'w' cannot be masked: ") as caught:
            select(tensors, PATTERN, layers)
        assert (caught.value.kind, caught.value.name) == ("unsupported", "w")
        assert caught.value.reason
        return
    selection = select(tensors, PATTERN, layers)
    assert selection.chosen == (["fine", "w"] if fits else ["fine"])
    assert bool(selection.skipped.get("w")) is not fits


def test_what_is_spelled_out_and_excluded_is_left_out():
    selection = select(candidates(["a", "b"]), PATTERN, ["a", "b"], "b")
    assert (selection.chosen, selection.skipped) == (["a"], {"b": "excluded"})
    scalar = Candidate("scalar", (), "F32")
    assert select([*candidates(["a"]), scalar], PATTERN, ["a", "scalar"], "scalar").chosen == ["a"]


def test_aliases_name_a_tensor_as_its_name_does():
    tensors = [
        Candidate("0.weight", (8, 8), "F32", aliases=("0", "head", "head.weight")),
        Candidate("1.weight", (8, 8), "F32", aliases=("1",)),
    ]
    for layers in ("0", "head", "he*", "head.weight", "0.weight"):
        assert select(tensors, PATTERN, layers).chosen == ["0.weight"]
    assert select(tensors, PATTERN, None, "head").chosen == ["1.weight"]
    assert select(tensors, PATTERN, ["head"]).named == {"0.weight"}


def test_what_is_dense_by_default_is_masked_where_layers_select_it():
    tensors = [Candidate("first", (8, 8), "F32", dense_by_default_reason="the first"), *candidates(["second"])]
    assert select(tensors, PATTERN).skipped == {"first": "the first"}
    assert select(tensors, PATTERN, "f*").chosen == ["first"]


def test_a_reason_of_the_callers_counts_before_shape_and_dtype():
    tensors = [Candidate("sparse", (8, 8), "F32", unsupported_reason="it is sparse"), *candidates(["w"])]
    assert select(tensors, PATTERN).skipped == {"sparse": "it is sparse"}
    assert select(tensors, None).chosen == ["w"]
    with pytest.raises(SelectionError, match="'sparse' cannot be masked: it is sparse"):
        select(tensors, None, "sparse")


def test_without_a_pattern_shapes_and_dtypes_do_not_count():
    assert select([Candidate("w")], None).chosen == ["w"]


def test_patterns_by_name_leave_out_the_tensors_that_have_none():
    tensors = candidates(["a", "b", "c"], (8, 16))
    patterns = {"a": parse("2:4"), "b": parse("3:5", ragged="error")}
    selection = select(tensors, patterns)
    assert selection.chosen == ["a"]
    assert selection.skipped["c"] == "no pattern is given for it"
    assert "5" in selection.skipped["b"]
    with pytest.raises(SelectionError, match="no pattern"):
        select(tensors, patterns, layers=["c"])


def test_tensors_too_large_for_one_worker_are_part_of_the_decision():
    tensors = [*candidates(["large"], (2**14, 2**14)), *candidates(["small"])]
    half = parse("50%")
    assert select(tensors, half).chosen == ["large", "small"]
    skipped = select(tensors, half, whole_tensor_needed_by=whole_tensor_needed_by).skipped
    assert "50% needs the whole tensor" in skipped["large"]
    with pytest.raises(SelectionError, match=r"'large' cannot be masked: 50% needs"):
        select(tensors, half, "large", whole_tensor_needed_by=whole_tensor_needed_by)


def test_what_is_wrong_with_the_whole_is_said():
    with pytest.raises(SelectionError, match="there are no tensors at all"):
        select([], PATTERN)
    with pytest.raises(SelectionError, match="tensor 'a' is named twice") as caught:
        select(candidates(["a", "b", "a"]), PATTERN)
    assert (caught.value.kind, caught.value.name) == ("duplicate", "a")
    with pytest.raises(
        SelectionError, match=r"none of 2 layer\(s\) can be masked: 'a' and 1 other\(s\): shape \[8\]"
    ) as caught:
        select(candidates(["a", "b", "x"], (8,)), PATTERN, ["a*", "b*"], noun="layer")
    assert caught.value.kind == "nothing_left"
    assert caught.value.skipped["x"] == "not selected"
    with pytest.raises(SelectionError, match=r"there are t0, t1, t2, t3, t4, \.\.\. \(9 in all\)"):
        select(candidates([f"t{number}" for number in range(9)]), PATTERN, "w")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"dense_by_default_reason": "a head", "only_by_name": True},
            "a head); it is masked only if layers has its full name",
        ),
        (
            {"dense_by_default_reason": "outside"},
            "outside); it is masked if layers has its name or a glob that matches it",
        ),
        ({"unsupported_reason": "packed"}, "(packed)"),
        ({"dtype": "F8_E8M0"}, ")"),
        ({"shape": (8, 9, 3, 3, 3)}, ")"),
    ],
)
def test_a_rule_whose_tensors_stay_dense_says_how_layers_selects_them(options, message):
    tensors = [Candidate("w", **({"shape": (8, 8), "dtype": "F32"} | options)), Candidate("x", (8, 8), "F32")]
    patterns = TensorPatterns.parse(["2:4", "w=1:4"])
    selection = select(tensors, patterns.assign(["w", "x"]))
    with pytest.raises(PatternError) as caught:
        check_rules_apply(patterns, tensors, selection.skipped)
    assert str(caught.value).startswith("pattern 'w'=1:4: 'w' stays dense (")
    assert str(caught.value).endswith(message)
    assert ("layers has" in str(caught.value)) is ("dense_by_default_reason" in options)
