"""The specification of a masks job: its options, with pattern, budget and methods parsed once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from masksmith.layouts import whole_tensor_needed_by
from masksmith.patterns import Budget, Pattern, PatternError, parse, solver_refusal, with_full_density

from .documents import MasksOptions
from .errors import Code
from .scores import ScoreMethod
from .updates import UpdateMethod


class SpecificationError(ValueError):
    """The options of a job are invalid.

    Attributes:
        code: Error code.
        invalid_options: Values of the invalid options, by name.
    """

    def __init__(self, code: Code, detail: str, **invalid_options: Any) -> None:
        super().__init__(detail)
        self.code, self.invalid_options = code, invalid_options


@dataclass(frozen=True)
class JobSpecification:
    """The parsed options of a masks job; a copy with another pattern has the options of one tensor.

    Attributes:
        options: The options of the request, with the pattern in canonical form.
        pattern: Without a budget, the default pattern of the tensors, of which some may have their own. With a budget,
            the family of patterns from which each tensor gets one. In a copy for one tensor, the tensor's pattern.
        budget: The share of entries that all tensors together may keep, and minimum shares of single tensors; or None.
    """

    options: MasksOptions
    pattern: Pattern
    budget: Budget | None

    @classmethod
    def parse(cls, options: MasksOptions) -> Self:
        """Parse options; of a request, whose class extends `MasksOptions`, only the members of `MasksOptions` are kept.

        Raises:
            SpecificationError: If the pattern, the budget or a floor is invalid; if there are floors without a budget;
                if the solver does not support the pattern; or if an option of scores or update is out of its range.
        """
        _check_ranges(options)
        pattern = _parse_pattern(options)
        _check_solver(pattern, options)
        members = {name: getattr(options, name) for name in MasksOptions.model_fields} | {"pattern": str(pattern)}
        return cls(MasksOptions.model_construct(**members), pattern, _parse_budget(options))

    def with_pattern(self, text: str) -> Self:
        """Copy with another pattern, such as the one that a budget assigns to a tensor.

        It is not checked whether the solver supports the pattern.

        Raises:
            SpecificationError: If the pattern is invalid.
        """
        options = self.options.model_copy(update={"pattern": text})
        pattern = _parse_pattern(options)
        options = options.model_copy(update={"pattern": str(pattern)})
        return replace(self, options=options, pattern=pattern)

    def with_own_pattern(self, text: str | None) -> Self:
        """Copy with a tensor's own pattern; unchanged if the tensor has none.

        Raises:
            SpecificationError: If the pattern is invalid, the solver does not support it, or there is a budget.
        """
        if text is None:
            return self
        if self.budget is not None:
            detail = f"the budget decides the patterns of single tensors, so {text[:80]!r} cannot be given for one"
            raise SpecificationError(Code.INVALID_BUDGET, detail, budget=self.options.budget, pattern=text)
        specification = self.with_pattern(text)
        _check_solver(specification.pattern, specification.options)
        return specification

    @property
    def scores(self) -> ScoreMethod:
        """The score method."""
        return self.options.scores

    @property
    def update(self) -> UpdateMethod | None:
        """The update method, or None."""
        return self.options.update

    @property
    def fitting_pattern(self) -> Pattern:
        """The pattern against which shapes are checked.

        With a budget, the density of a pattern is replaced by 1: a small tensor may be too small to keep an entry or
        block at the job's density, but the budget keeps at least one of every tensor. A pattern n:m is not changed.
        """
        return self.pattern if self.budget is None else with_full_density(self.pattern)

    def whole_tensor_needed_by(self, pattern: Pattern) -> str | None:
        """Why one worker needs the whole tensor: the pattern, the update or "spectrum"; None if rows can be divided."""
        return whole_tensor_needed_by(pattern, self.update, spectrum=self.options.spectrum)


def _parse_pattern(options: MasksOptions) -> Pattern:
    try:
        return parse(options.pattern, axis=options.axis, ragged=options.ragged)
    except PatternError as error:
        raise SpecificationError(Code.INVALID_PATTERN, str(error), pattern=options.pattern) from None


def _check_ranges(options: MasksOptions) -> None:
    for name, method in (("scores", options.scores), ("update", options.update)):
        reason = None if method is None else method.out_of_range_reason
        if reason is not None:
            detail = f"{name} {str(method)!r}: {reason}"
            raise SpecificationError(Code.INVALID_DOCUMENT, detail, **{name: str(method)})


def _check_solver(pattern: Pattern, options: MasksOptions) -> None:
    refusal = solver_refusal(pattern, options.solver)
    if refusal is not None:
        raise SpecificationError(Code.SOLVER_REFUSED, refusal, solver=options.solver, pattern=options.pattern)


def _parse_budget(options: MasksOptions) -> Budget | None:
    budget_options = {"budget": options.budget, "floors": options.floors}
    if options.budget is None and options.floors:
        detail = f"floor {options.floors[0]!r} without a budget; set budget to the share that all tensors may keep"
        raise SpecificationError(Code.INVALID_BUDGET, detail, **budget_options)
    try:
        return None if options.budget is None else Budget.parse(options.budget, options.floors)
    except PatternError as error:
        raise SpecificationError(Code.INVALID_BUDGET, str(error), **budget_options) from None
