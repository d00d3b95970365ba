"""Arguments of another type than documented are refused by name, before anything is sent."""

from typing import Any

import numpy as np
import pytest

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.checkpoints.choice import user_layouts
from masksmith_client.checkpoints.prune_options import choice_options_of
from masksmith_client.submission.benchmarks import prepare_benchmark
from masksmith_client.submission.prepare import prepare

WEIGHTS = {"a.weight": np.ones((32, 64), np.float32)}


@pytest.mark.parametrize("pattern", [None, 5, b"2:4", ["2:4", 5], [ms.NM(2, 4)], {"*": 5}, {"*": None}, {5: "2:4"}])
def test_patterns_of_other_types_are_refused(pattern: Any) -> None:
    for function in (lambda: prepare(WEIGHTS, pattern), lambda: choice_options_of(pattern, {})):
        with pytest.raises(InputError, match="expected a pattern"):
            function()


@pytest.mark.parametrize("option", ["layers", "exclude"])
@pytest.mark.parametrize("globs", [5, [3], b"a*", {"a*": 1, 5: 2}])
def test_globs_of_other_types_are_refused(option: str, globs: Any) -> None:
    options: Any = {option: globs}
    for function in (lambda: prepare(WEIGHTS, "2:4", **options), lambda: choice_options_of("2:4", options)):
        with pytest.raises(InputError, match=f"{option}=.*expected a name or glob, or several"):
            function()


@pytest.mark.parametrize("globs", ["a*", ("a*",), {"a*"}, iter(["a*"])])
def test_globs_may_be_in_any_collection(globs: Any) -> None:
    assert len(prepare(WEIGHTS, "2:4", layers=globs).weights) == 1


@pytest.mark.parametrize(
    ("layout", "reason"), [({"a.weight": 5}, "not 5"), ([1], "layout=.1. .* by name"), ({"a.weight": b"x"}, "not b'x'")]
)
def test_layouts_of_other_types_are_refused(layout: Any, reason: str) -> None:
    for view in ("channels-last", "flat"):
        with pytest.raises(InputError, match=reason):
            prepare(WEIGHTS, "2:4", layout=layout, view=view)


def test_layouts_of_a_checkpoint_may_be_objects() -> None:
    layout = ms.layouts.Layout.parse("in out")
    assert user_layouts({"a*": layout}, ["a.weight"]) == {"a.weight": layout}
    with pytest.raises(InputError, match=r"the layout of 'a\*': .*not 5"):
        user_layouts({"a*": 5}, ["a.weight"])


@pytest.mark.parametrize("patterns", ["2:4", ms.NM(2, 4), [ms.NM(2, 4)], ["2:4"]])
def test_a_benchmark_takes_one_pattern_or_several(patterns: Any) -> None:
    assert prepare_benchmark("MiniLM", patterns).patterns == ["2:4"]
