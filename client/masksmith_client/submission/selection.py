"""Select the weights to mask: by name, by glob, or by default all but those that stay dense, such as embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from masksmith import layouts
from masksmith.layouts import Candidate, Layout, LayoutError, Selection, SelectionError
from masksmith.layouts.selection import WholeTensorNeededBy
from masksmith.patterns import Pattern, PatternError
from masksmith.patterns.matching import Globs
from masksmith_client._errors import InputError, as_input_errors

from .streamed_tensor import StreamedTensor


def candidates_of(
    weights: Sequence[StreamedTensor], user_layouts: Mapping[str, Layout | str] | None = None
) -> list[Candidate]:
    """Return the weights as candidates, with layouts, or reasons why there are none; see `layouts.with_layouts`.

    Args:
        weights: All weights of a model.
        user_layouts: Layouts that the caller sets, by name.

    Raises:
        InputError: If a layout is malformed, names no weight or does not match the weight's shape.
    """
    if user_layouts is not None and not isinstance(user_layouts, Mapping):
        raise InputError(f"layout={user_layouts!r} is no mapping: pass layouts by name, such as {{'w1': 'in out'}}")
    candidates = [
        Candidate(
            weight.name,
            weight.shape,
            weight.dtype,
            layout=weight.layout,
            dense_by_default_reason=weight.dense_by_default_reason,
            only_by_name=weight.dense_by_default_reason is not None,
            file_format=weight.file_format,
            may_be_convolution=weight.may_be_convolution,
            unsupported_reason=weight.unsupported_reason,
        )
        for weight in weights
    ]
    with as_input_errors(LayoutError):
        parsed = {name: _parsed(name, layout) for name, layout in (user_layouts or {}).items()}
        layouts_by_name = {name: layout for name, layout in parsed.items() if layout is not None}
        return layouts.with_layouts(candidates, layouts_by_name)


def _parsed(name: str, layout: Layout | str) -> Layout | None:
    try:
        return Layout.of(layout)
    except LayoutError as error:
        raise InputError(f"the layout of {name!r}: {error}") from None


def select(
    candidates: Sequence[Candidate],
    pattern: Pattern | Mapping[str, Pattern],
    layers: Globs = None,
    exclude: Globs = None,
    *,
    whole_tensor_needed_by: WholeTensorNeededBy = lambda pattern: None,
    in_parts: bool = False,
) -> Selection:
    """Select the weights to mask; see `masksmith.layouts.select`.

    Raises:
        InputError: If an option is no name or glob, or matches nothing; if a weight named in full cannot be masked; or
            if no weight remains.
    """
    with as_input_errors(SelectionError, PatternError):
        return layouts.select(
            candidates, pattern, layers, exclude, whole_tensor_needed_by=whole_tensor_needed_by, in_parts=in_parts
        )
