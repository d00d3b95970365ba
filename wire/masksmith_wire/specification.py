"""What a masks job is to do, with each of its texts parsed once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from masksmith.layouts import binding
from masksmith.patterns import Budget, Pattern, PatternError, parse, solver_refusal, unshared

from .documents import MasksOptions
from .errors import Code
from .scores import ScoreMethod
from .updates import UpdateMethod


class SpecificationError(ValueError):
    """Options that name no job that can be done.

    Attributes:
        code: What kind of error it is.
        place: The options at fault, by name.
    """

    def __init__(self, code: Code, detail: str, **place: Any) -> None:
        super().__init__(detail)
        self.code, self.place = code, place


@dataclass(frozen=True)
class JobSpecification:
    """The options of a masks job, parsed.

    Attributes:
        options: The options as they travel, the pattern in its canonical spelling.
        pattern: The pattern of every tensor, or the one whose budget is shared out.
        budget: What all tensors together may keep, if that is shared out.
    """

    options: MasksOptions
    pattern: Pattern
    budget: Budget | None

    @classmethod
    def parse(cls, options: MasksOptions) -> Self:
        """Parse options.

        Raises:
            SpecificationError: If they hold no pattern or no budget, or the solver cannot solve the pattern.
        """
        pattern = _pattern(options)
        refusal = solver_refusal(pattern, options.solver)
        if refusal is not None:
            raise SpecificationError(Code.SOLVER_REFUSED, refusal, solver=options.solver, pattern=options.pattern)
        members = {name: getattr(options, name) for name in MasksOptions.model_fields} | {"pattern": str(pattern)}
        return cls(MasksOptions.model_construct(**members), pattern, _budget(options))

    def with_pattern(self, text: str) -> Self:
        """Make the specification of one tensor, with the pattern that the budget gives it."""
        options = self.options.model_copy(update={"pattern": text})
        return replace(self, options=options, pattern=_pattern(options))

    @property
    def scores(self) -> ScoreMethod:
        """How weights are scored."""
        return self.options.scores

    @property
    def update(self) -> UpdateMethod | None:
        """How weights are updated, if they are."""
        return self.options.update

    @property
    def fitting_pattern(self) -> Pattern:
        """The pattern that shapes must fit: under a budget no share of one tensor rounds to nothing."""
        return self.pattern if self.budget is None else unshared(self.pattern)

    @property
    def binding(self) -> str | None:
        """What binds the whole of a tensor, if anything does."""
        return binding(self.pattern, self.update, spectrum=self.options.spectrum)


def _pattern(options: MasksOptions) -> Pattern:
    try:
        return parse(options.pattern, axis=options.axis, ragged=options.ragged)
    except PatternError as error:
        raise SpecificationError(Code.INVALID_PATTERN, str(error), pattern=options.pattern) from None


def _budget(options: MasksOptions) -> Budget | None:
    place = {"budget": options.budget, "floors": options.floors}
    if options.budget is None and options.floors:
        detail = f"floor {options.floors[0]!r} without a budget; say what may be kept of all tensors"
        raise SpecificationError(Code.INVALID_BUDGET, detail, **place)
    try:
        return None if options.budget is None else Budget.parse(options.budget, options.floors)
    except PatternError as error:
        raise SpecificationError(Code.INVALID_BUDGET, str(error), **place) from None
