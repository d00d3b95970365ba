"""Selects the tensors to mask by name, by glob or by default, and gives the reason why each other one stays dense."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from masksmith.patterns import Pattern, PatternError, TensorPatterns
from masksmith.patterns.errors import MasksmithError
from masksmith.patterns.matching import Globs, NameMatcher, listed

from .candidates import Candidate
from .dtypes import dtype_reason
from .whole_tensors import oversize_reason

EXCLUDED = "excluded"
NOT_SELECTED = "not selected"
NO_PATTERN = "no pattern is given for it"
SHOWN_REASONS = 5
"""Number of different reasons in the message that nothing can be masked."""
WholeTensorNeededBy = Callable[[Pattern], str | None]
"""Returns what needs the whole tensor in one worker, for the tensor's pattern; None if rows can be divided."""
BY_CHOICE = frozenset({EXCLUDED, NOT_SELECTED})
"""Reasons of the tensors that the caller left out by `layers` or `exclude`."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The tensors to mask, and the reasons why the other ones stay dense.

    Attributes:
        chosen: Names of the tensors to mask, in the order of the candidates.
        named: Names of the chosen tensors that `layers` has exactly, not by a glob.
        skipped: For each tensor that is not chosen, the reason, by name.
    """

    chosen: list[str]
    named: frozenset[str]
    skipped: dict[str, str]


class SelectionError(MasksmithError, ValueError):
    """The selection cannot be made; each caller turns it into an error of its own.

    Attributes:
        kind: `unmatched`: a name or glob matches nothing; `unsupported`: a tensor named exactly cannot be masked;
            `duplicate`: two tensors have the same name; `nothing_left`: no tensor is selected.
        name: The tensor, name or glob that caused the error; empty if nothing is selected.
        reason: Description of the error, without the name.
        available: Names of all tensors, if a name or glob matches nothing.
        skipped: For each tensor, why it stays dense, if no tensor is selected.
    """

    def __init__(
        self,
        kind: Literal["unmatched", "unsupported", "duplicate", "nothing_left"],
        message: str,
        name: str = "",
        reason: str = "",
        available: Sequence[str] = (),
        skipped: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.kind, self.name, self.reason = kind, name, reason or message
        self.available, self.skipped = list(available), dict(skipped or {})


def select(
    candidates: Sequence[Candidate],
    pattern: Pattern | Mapping[str, Pattern] | None,
    layers: Globs = None,
    exclude: Globs = None,
    *,
    whole_tensor_needed_by: WholeTensorNeededBy = lambda pattern: None,
    in_parts: bool = False,
    noun: str = "tensor",
) -> Selection:
    """Select the tensors to mask.

    Args:
        candidates: All tensors.
        pattern: Pattern that the shapes must fit, or patterns by name (a tensor without one stays dense); None if
            nothing is masked, so that shapes and dtypes do not matter.
        layers: Names or globs; by default all tensors that are not dense by default. A tensor that is named exactly
            must be supported; of the tensors that a glob matches, unsupported ones stay dense.
        exclude: Names or globs of tensors that stay dense, with priority over `layers`.
        whole_tensor_needed_by: See `WholeTensorNeededBy`.
        in_parts: Whether tensors are divided into ranges of rows. One worker then needs the whole of a tensor whose
            layout is not plain (see `Layout.is_plain`), or of each matrix if it is a stack of matrices.
        noun: Word for a candidate in error messages.

    Raises:
        PatternError: If `layers` or `exclude` is neither a text nor texts.
        SelectionError: If a name or glob matches nothing, a tensor named exactly cannot be masked, two tensors have the
            same name, or no tensor is selected.
    """
    if not candidates:
        raise SelectionError("nothing_left", f"there are no {noun}s at all")
    _refuse_duplicates(candidates, noun)
    spellings = [spelling for candidate in candidates for spelling in candidate.spellings]
    included = NameMatcher(listed(layers, "layers"), spellings)
    excluded = NameMatcher(listed(exclude, "exclude"), spellings)
    _refuse_unmatched([*included.unmatched, *excluded.unmatched], candidates, noun)
    chosen, named, skipped = [], set(), {}
    for candidate in candidates:
        is_named = included.has_exact(*candidate.spellings)
        not_selected = _not_selected_reason(candidate, included, excluded, is_named=is_named)
        reason = not_selected or _unsupported_reason(
            candidate, pattern, whole_tensor_needed_by, in_parts, named=is_named
        )
        if reason is None:
            chosen.append(candidate.name)
            if is_named:
                named.add(candidate.name)
        elif is_named and not_selected is None:
            message = f"{candidate.name!r} cannot be masked: {reason}"
            raise SelectionError("unsupported", message, candidate.name, reason)
        else:
            skipped[candidate.name] = reason
    if not chosen:
        raise SelectionError("nothing_left", _nothing_selected_message(skipped, noun), skipped=skipped)
    return Selection(chosen, frozenset(named), skipped)


def check_rules_apply(patterns: TensorPatterns, candidates: Sequence[Candidate], skipped: Mapping[str, str]) -> None:
    """Check that each rule applies to at least one tensor that it selects, unless the caller left one of them out.

    Args:
        patterns: The rules, by selector.
        candidates: All tensors.
        skipped: Reasons of the tensors that stay dense, by name.

    Raises:
        PatternError: If all tensors of a rule stay dense, none of them by `layers` or `exclude`; the message has the
            rule, a reason, and how `layers` selects a tensor that is dense by default.
    """
    by_name = {candidate.name: candidate for candidate in candidates}
    for selector, pattern in patterns.rules.items():
        selected = patterns.selected(selector, list(by_name))
        reasons = [skipped[name] for name in selected if name in skipped]
        if len(reasons) == len(selected) and not any(reason in BY_CHOICE for reason in reasons):
            advice = _advice(by_name[selected[0]], reasons[0])
            raise PatternError(
                f"pattern {selector[:512]!r}={pattern}: {selected[0]!r} stays dense ({reasons[0]}){advice}"
            )


def _advice(candidate: Candidate, reason: str) -> str:
    """Say how `layers` selects a tensor that is dense by default; an empty text if it is dense for another reason."""
    if reason != candidate.dense_by_default_reason or candidate.unsupported_reason is not None:
        return ""
    if candidate.only_by_name:
        return "; it is masked only if layers has its full name"
    return "; it is masked if layers has its name or a glob that matches it"


def _not_selected_reason(
    candidate: Candidate, included: NameMatcher, excluded: NameMatcher, *, is_named: bool
) -> str | None:
    """Return why the caller's names and globs, or the default, do not select a tensor; None if they do.

    Without `layers`, also None for an unsupported tensor: `_unsupported_reason` returns a more specific reason.
    """
    if excluded.match(*candidate.spellings):
        return EXCLUDED
    if is_named or (candidate.unsupported_reason is not None and not included.texts):
        return None
    if not included.texts:
        return candidate.dense_by_default_reason
    if not included.match(*candidate.spellings):
        return NOT_SELECTED
    return candidate.dense_by_default_reason if candidate.only_by_name else None


def _unsupported_reason(
    candidate: Candidate,
    pattern: Pattern | Mapping[str, Pattern] | None,
    whole_tensor_needed_by: WholeTensorNeededBy,
    in_parts: bool,
    *,
    named: bool,
) -> str | None:
    """Return why a selected tensor cannot be masked or has no pattern; None if it is masked.

    Arguments are as for `select`; `named`: whether `layers` has the tensor's full name.
    """
    if candidate.unsupported_reason is not None or pattern is None:
        return (candidate.reason_if_named if named else None) or candidate.unsupported_reason
    if isinstance(pattern, Mapping):
        if candidate.name not in pattern:
            return NO_PATTERN
        pattern = pattern[candidate.name]
    reason = dtype_reason(candidate.dtype, named=named)
    if reason is not None:
        return reason
    needed_by = whole_tensor_needed_by(pattern)
    try:
        shape, layout = candidate.matrix_shape, candidate.layout
        pattern.grid(shape)
        # `is_plain` also checks that the pattern fits each fused part.
        is_plain = layout is None or layout.is_plain(pattern, candidate.shape)
        if in_parts and layout is not None and not is_plain:
            needed_by = needed_by or f"its layout {str(layout)!r}"
            shape = shape if layout.is_stack else candidate.shape
    except PatternError as error:
        return str(error)
    return oversize_reason(shape, candidate.dtype, needed_by)


def _refuse_duplicates(candidates: Sequence[Candidate], noun: str) -> None:
    seen: set[str] = set()
    for candidate in candidates:
        if candidate.name in seen:
            raise SelectionError("duplicate", f"{noun} {candidate.name!r} is named twice", candidate.name)
        seen.add(candidate.name)


def _refuse_unmatched(unmatched: Sequence[str], candidates: Sequence[Candidate], noun: str) -> None:
    if unmatched:
        names = [candidate.name for candidate in candidates]
        more = f", ... ({len(names)} in all)" if len(names) > 5 else ""
        reason = f"there are {', '.join(names[:5])}{more}"
        raise SelectionError(
            "unmatched", f"no {noun} is called {unmatched[0]!r}; {reason}", unmatched[0], reason, names
        )


def _nothing_selected_message(skipped: Mapping[str, str], noun: str) -> str:
    """Describe why nothing is masked, by one tensor of each of the first `SHOWN_REASONS` reasons."""
    names_by_reason: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        if reason != NOT_SELECTED:
            names_by_reason.setdefault(reason, []).append(name)
    count = sum(map(len, names_by_reason.values()))
    examples = [
        f"{first!r}{f' and {len(others)} other(s)' if others else ''}: {reason}"
        for reason, (first, *others) in list(names_by_reason.items())[:SHOWN_REASONS]
    ]
    return f"none of {count} {noun}(s) can be masked: {'; '.join(examples)}"
