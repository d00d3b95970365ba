"""Layouts of a checkpoint's tensors from the model's own classes, where `transformers` and `torch` are installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masksmith.layouts import Candidate, Layout
from masksmith.layouts.layout import AxisRole

from .config import CONFIG_NAME
from .trace import Trace
from .trace_cache import load_trace, save_trace, trace_key

if TYPE_CHECKING:
    from .tracing.correspondence import Correspondence
    from .tracing.observed import Observed
    from .tracing.sources import Source

FALLBACK = "names and shapes decide"
BUFFER = "a buffer, not a parameter"


def trace(directory: Path, shapes: Mapping[str, tuple[int, ...]], *, trust_remote_code: bool = False) -> Trace:
    """Build the model that a checkpoint's config names, trace one forward pass, and return its tensors' layouts.

    Nothing is downloaded, no weights are read, and on the meta device none are allocated. The result is cached on disk,
    unless remote code is trusted.

    Args:
        directory: The checkpoint's directory, with its `config.json`.
        shapes: All of its tensors.
        trust_remote_code: Whether code that the checkpoint brings may be run.

    Returns:
        The trace; an empty one with a note where the model is unknown or cannot be run.
    """
    missing = _missing_libraries()
    if missing:
        return Trace(notes=[f"{' and '.join(missing)} not installed, so {FALLBACK}"])
    if trust_remote_code:  # the code that the checkpoint brings may do anything
        return _run(directory, shapes, trust_remote_code=True)
    try:
        key = trace_key((directory / CONFIG_NAME).read_bytes(), shapes)
    except OSError:
        return _run(directory, shapes, trust_remote_code=False)
    cached = load_trace(key)
    if cached is not None:
        return cached
    result = _run(directory, shapes, trust_remote_code=False)
    if result.layouts:
        save_trace(key, result)
    return result


def _run(directory: Path, shapes: Mapping[str, tuple[int, ...]], *, trust_remote_code: bool) -> Trace:
    from .tracing.correspondence import correspondence
    from .tracing.layer_classes import with_layer_classes
    from .tracing.models import UntracedError, offline
    from .tracing.observed import Observed
    from .tracing.passes import observe, shapes_of

    with offline():
        try:
            model = _build(directory, trust_remote_code=trust_remote_code)
        except UntracedError as error:
            return Trace(notes=[f"{error}, so {FALLBACK}"])
        try:
            observed = observe(model, trust_remote_code=trust_remote_code)
        except UntracedError as error:
            observed = Observed({}, {}, {}, (f"{error}, so the classes of layers, {FALLBACK}",))
        return _trace(with_layer_classes(observed, model), correspondence(model, shapes), shapes_of(model), shapes)


def has_tensors_of_its_class(directory: Path, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a checkpoint has exactly the matrices of the model that its config names, as `transformers` builds it.

    Args:
        directory: The checkpoint's directory, with its `config.json`.
        shapes: All of its tensors.

    Returns:
        False also where the model cannot be built.
    """
    if _missing_libraries():
        return False
    from .tracing.correspondence import correspondence
    from .tracing.models import UntracedError, offline

    with offline():
        try:
            matched = correspondence(_build(directory), shapes)
        except UntracedError:
            return False
    matrices = {name for name, shape in shapes.items() if len(shape) >= 2}
    return not matched.shape_mismatches and not matched.missing and matrices <= matched.sources.keys() | matched.buffers


def _build(directory: Path, *, trust_remote_code: bool = False) -> Any:
    from .tracing.models import build, load_config

    config = load_config(directory, trust_remote_code=trust_remote_code)
    return build(config, trust_remote_code=trust_remote_code)


def _missing_libraries() -> list[str]:
    return [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]


def traced_candidates(candidates: Sequence[Candidate], trace: Trace) -> list[Candidate]:
    """Return candidates with the layouts and reasons of a trace, for `with_layouts`; others stay unchanged."""
    return [_traced(candidate, trace) for candidate in candidates]


def _traced(candidate: Candidate, trace: Trace) -> Candidate:
    layout, reason = trace.layouts.get(candidate.name), trace.dense.get(candidate.name)
    if layout is not None and candidate.layout is None:
        candidate = replace(candidate, layout=layout)
    if reason is None or candidate.dense_by_default is not None:
        return candidate
    return replace(candidate, dense_by_default=reason, only_by_name=True)


def _trace(
    observed: Observed,
    matched: Correspondence,
    parameters: Mapping[str, tuple[int, ...]],
    shapes: Mapping[str, tuple[int, ...]],
) -> Trace:
    layouts, dense = {}, dict.fromkeys(matched.buffers, BUFFER)
    for name, sources in matched.sources.items():
        layout = _layout(sources, observed, parameters, shapes[name])
        reason = next(
            (observed.reasons[each.parameter] for each in sources if each.parameter in observed.reasons), None
        )
        if layout is not None:
            layouts[name] = layout
        if reason is not None:
            dense[name] = reason
    return Trace(
        layouts, dense, matched.tied, [*observed.notes, *_notes(matched, shapes, layouts.keys() | dense.keys())]
    )


def _layout(
    sources: Sequence[Source], observed: Observed, parameters: Mapping[str, tuple[int, ...]], shape: Sequence[int]
) -> Layout | None:
    """Return the layout that all sources agree on."""
    from .tracing.axis_roles import axes_from

    axes = {
        axes_from(_roles(source, observed), shape) if source.parameter in observed.axes else None for source in sources
    }
    certain = next(iter(axes)) if len(axes) == 1 else None
    if certain is None:
        return None
    rows = shape[certain.index("out")]
    lengths = [parameters[each.parameter][observed.axes[each.parameter].index("out")] for each in sources]
    parts = observed.parts.get(sources[0].parameter, ()) if len(sources) == 1 else tuple(lengths)
    return Layout(certain, parts if sum(parts) == rows else (), rule="model")


def _roles(source: Source, observed: Observed) -> list[frozenset[AxisRole]]:
    axes = observed.axes[source.parameter]
    return [frozenset(axes[dim] for dim in dims) for dims in source.dims]


def _notes(matched: Correspondence, shapes: Mapping[str, tuple[int, ...]], known: set[str]) -> list[str]:
    notes = [
        f"{name!r} has the shape {list(shapes[name])}, but config.json says {list(shape)}, so {FALLBACK}"
        for name, shape in matched.shape_mismatches.items()
    ]
    unknown = [
        name
        for name, shape in shapes.items()
        if len(shape) >= 2 and name not in known | matched.shape_mismatches.keys()
    ]
    if unknown:
        notes.append(
            f"{len(unknown)} tensor(s) were not seen in the forward pass, such as {unknown[0]!r}: for them {FALLBACK}"
        )
    return notes
