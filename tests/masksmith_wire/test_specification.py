"""Job specifications: options parsed once, and refused with a code and the place at fault."""

import pytest
from pydantic import BaseModel

from masksmith.patterns import Budget, parse
from masksmith_wire.documents import MasksOptions, Scores, Update
from masksmith_wire.scores import ScoreMethod
from masksmith_wire.specification import JobSpecification, SpecificationError
from masksmith_wire.updates import UpdateMethod


def specified(**options):
    return JobSpecification.parse(MasksOptions(**options))


def test_objects_are_made_of_the_texts():
    job = specified(pattern=" 2:4 ", axis="out", scores="ria power=.5", update="admm", budget="50%", floors=["a*=25%"])
    assert job.pattern == parse("2:4", axis="out")
    assert job.options.pattern == "2:4"
    assert job.scores == ScoreMethod("ria", {"power": 0.5})
    assert job.update == UpdateMethod("admm", {})
    assert job.budget == Budget.parse("50%", ["a*=25%"])


@pytest.mark.parametrize(
    ("options", "code", "place"),
    [
        ({"pattern": "2:1"}, "invalid_pattern", {"pattern": "2:1"}),
        ({"pattern": "2:4", "solver": "min-cost-flow"}, "solver_refused",
         {"solver": "min-cost-flow", "pattern": "2:4"}),
        ({"pattern": "2:4", "budget": "x"}, "invalid_budget", {"budget": "x", "floors": []}),
        ({"pattern": "2:4", "floors": ["*=1%"]}, "invalid_budget", {"budget": None, "floors": ["*=1%"]}),
    ],
)  # fmt: skip
def test_an_invalid_specification_has_a_code_and_a_place(options, code, place):
    with pytest.raises(SpecificationError) as caught:
        specified(**options)
    assert (caught.value.code, caught.value.invalid_options) == (code, place)
    assert str(caught.value)


def test_a_tensors_own_pattern_replaces_the_jobs():
    job = specified(pattern="30%", budget="50%", scores="wanda")
    own = job.with_pattern("20%")
    assert (own.pattern, own.options.pattern) == (parse("20%"), "20%")
    assert (own.scores, own.budget) == (job.scores, job.budget)
    assert str(job.fitting_pattern) == "100%"


@pytest.mark.parametrize(
    ("options", "needed_by"),
    [
        ({"pattern": "2:4"}, None),
        ({"pattern": "10%"}, "10%"),
        ({"pattern": "2:4", "update": "admm"}, "admm"),
        ({"pattern": "2:4", "update": "reconstruct"}, None),
        ({"pattern": "2:4", "spectrum": True}, "spectrum"),
    ],
)
def test_what_needs_the_whole_tensor(options, needed_by):
    specification = specified(**options)
    assert specification.whole_tensor_needed_by(specification.pattern) == needed_by


class Document(BaseModel):
    scores: Scores
    update: Update | None = None


def test_methods_travel_as_text():
    document = Document.model_validate_json('{"scores": "ria  power=.5", "update": "admm"}')
    assert document.model_dump() == {"scores": "ria power=0.5", "update": "admm"}
    assert document.model_dump_json() == '{"scores":"ria power=0.5","update":"admm"}'
    assert Document(scores=document.scores).scores is document.scores
    members = Document.model_json_schema()["properties"]
    assert (members["scores"]["type"], members["scores"]["maxLength"]) == ("string", 100)


def test_a_document_parses_each_method_once(monkeypatch):
    parsed = []
    parse_method = ScoreMethod.parse.__func__
    monkeypatch.setattr(
        ScoreMethod, "parse", classmethod(lambda kind, text: parsed.append(text) or parse_method(kind, text))
    )

    class Fresh(BaseModel):
        scores: Scores

    document = Fresh(scores="wanda")
    Fresh(scores=document.scores)
    assert parsed == ["wanda"]
