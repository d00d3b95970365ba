import pytest

from masksmith_wire.scores import ScoreMethod, statistic_mismatch


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("magnitude", "magnitude", {}),
        ("magnitude power=2", "magnitude", {"power": 2.0}),
        ("  ria   power=0.7 ", "ria", {"power": 0.7}),
        ("sparsegpt form=sequential damping=0.1", "sparsegpt", {"damping": 0.1, "form": "sequential"}),
        ("taylor group=32x16 joint=true", "taylor", {"group": (32, 16), "joint": True}),
        ("taylor group=in", "taylor", {"group": "in"}),
        ("sipp reduce=max", "sipp", {"reduce": "max"}),
    ],
)
def test_scores_are_read_and_written_back(text, name, options):
    method = ScoreMethod.parse(text)
    assert method == ScoreMethod(name, options)
    assert ScoreMethod.parse(str(method)) == method


def test_the_same_scores_have_one_spelling():
    assert str(ScoreMethod.parse("sparsegpt form=diagonal damping=0.10")) == "sparsegpt damping=0.1 form=diagonal"
    assert str(ScoreMethod.parse("magnitude power=2.0")) == "magnitude power=2"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "does not begin with one of the scores"),
        ("wandaa", "'wandaa' does not begin with one of the scores"),
        ("wanda power=2", "wanda has no option 'power'"),
        ("ria power=-1", "power='-1'"),
        ("magnitude power=0", "not a positive number"),
        ("ria power=nan", "power='nan'"),
        ("ria power=inf", "power='inf'"),
        ("ria power=1_0", "power='1_0'"),
        ("ria power=\u0663", "power='\u0663'"),
        ("ria power", "power=''"),
        ("ria power=1 power=2", "set twice"),
        ("sparsegpt form=best", "diagonal or sequential"),
        ("taylor group=3", "ROWSxCOLS"),
        ("taylor group=0x4", "ROWSxCOLS"),
        ("taylor joint=maybe", "true or false"),
        ("taylor group=in joint=true", "use the library"),
    ],
)
def test_invalid_score_methods_are_rejected_with_the_reason(text, words):
    with pytest.raises(ValueError, match=r".") as caught:
        ScoreMethod.parse(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("magnitude", ()),
        ("ria", ("norms",)),
        ("ria power=0", ()),
        ("sparsegpt", ("inverse_diagonal", "gram")),
        ("sparsegpt damping=0.1", ("gram",)),
        ("given", ("scores",)),
    ],
)
def test_each_score_method_names_its_statistics(text, kinds):
    assert ScoreMethod.parse(text).kinds == kinds


@pytest.mark.parametrize(
    ("kind", "shape", "weight", "fits"),
    [
        ("norms", (8,), (4, 8), True),
        ("norms", (3,), (4, 3, 2, 2), True),
        ("norms", (12,), (4, 3, 2, 2), True),
        ("norms", (3, 2, 2), (4, 3, 2, 2), True),
        ("norms", (4,), (4, 8), False),
        ("inverse_diagonal", (8, 8), (4, 8), False),
        ("gram", (12, 12), (4, 3, 2, 2), True),
        ("gram", (3, 3), (4, 3, 2, 2), False),
        ("activations", (100, 8), (4, 8), True),
        ("activations", (0, 8), (4, 8), False),
        ("gradient", (4, 8), (4, 8), True),
        ("scores", (8, 4), (4, 8), False),
    ],
)
def test_shapes_are_judged_by_what_the_statistic_is(kind, shape, weight, fits):
    fault = statistic_mismatch(kind, shape, weight)
    assert (fault is None) == fits
    if not fits:
        assert kind in fault
        assert str(list(shape)) in fault
