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
    from .tracing.observations import Observations
    from .tracing.sources import Source

FALLBACK = "names and shapes decide"
BUFFER = "a buffer, not a parameter"


def trace(directory: Path, shapes: Mapping[str, tuple[int, ...]], *, trust_remote_code: bool = False) -> Trace:
    """Build the model that a checkpoint's config names, trace a forward pass, and return what it shows of the tensors.

    Nothing is downloaded, no weights are read, and on the meta device none are allocated. A trace that has layouts is
    cached on disk, unless remote code is trusted.

    Args:
        directory: The checkpoint's directory, with its `config.json`.
        shapes: Shapes of all of its tensors, by name.
        trust_remote_code: Whether code that the checkpoint brings may be run.

    Returns:
        The trace. It has only a note with the reason if a library is missing, if the model cannot be built, or if its
        parameters cannot be compared with the tensors. If the model cannot be run, it has a note and what the classes
        of its layers show.
    """
    missing = _missing_libraries()
    if missing:
        return Trace(notes=[f"{' and '.join(missing)} not installed, so {FALLBACK}"])
    if trust_remote_code:  # not cached, since the key does not cover the code that the checkpoint brings
        return _run(directory, shapes, trust_remote_code=True)
    try:
        key = trace_key((directory / CONFIG_NAME).read_bytes(), shapes)
    except OSError:  # `_run` returns a note with the reason
        return _run(directory, shapes, trust_remote_code=False)
    cached = load_trace(key)
    if cached is not None:
        return cached
    result = _run(directory, shapes, trust_remote_code=False)
    if result.layouts:
        save_trace(key, result)
    return result


def _run(directory: Path, shapes: Mapping[str, tuple[int, ...]], *, trust_remote_code: bool) -> Trace:
    from .tracing.layer_classes import extended_by_layer_classes
    from .tracing.models import UntracedError, tracing_settings
    from .tracing.observations import Observations
    from .tracing.passes import observe, shapes_of

    with tracing_settings():
        try:
            model = _build(directory, shapes, trust_remote_code=trust_remote_code)
            correspondence = _correspondence(model, shapes)
        except UntracedError as error:
            return Trace(notes=[f"{error}, so {FALLBACK}"])
        try:
            observations = observe(model, trust_remote_code=trust_remote_code)
        except UntracedError as error:
            observations = Observations({}, {}, {}, (f"{error}, so classes of layers, {FALLBACK}",))
        observations = extended_by_layer_classes(observations, model)
        return _make_trace(observations, correspondence, shapes_of(model), shapes)


def has_matrices_of_config_model(directory: Path, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a checkpoint has exactly the matrices of the model that its config names, as `transformers` builds it.

    Args:
        directory: The checkpoint's directory, with its `config.json`.
        shapes: Shapes of all of its tensors, by name.

    Returns:
        False if the model cannot be built, also because a library is missing.
    """
    if _missing_libraries():
        return False
    from .tracing.models import UntracedError, tracing_settings

    with tracing_settings():
        try:
            result = _correspondence(_build(directory, shapes), shapes)
        except UntracedError:
            return False
    matrices = {name for name, shape in shapes.items() if len(shape) >= 2}
    return not result.shape_mismatches and not result.missing and matrices <= result.sources.keys() | result.buffers


def _build(directory: Path, shapes: Mapping[str, tuple[int, ...]], *, trust_remote_code: bool = False) -> Any:
    from .tracing.models import UntracedError, build, load_config
    from .tracing.size_limits import excessive_stacks, limited_modules

    config = load_config(directory, trust_remote_code=trust_remote_code)
    with limited_modules(len(shapes)):
        model = build(config, trust_remote_code=trust_remote_code)
    message = excessive_stacks(model, shapes)
    if message is not None:
        raise UntracedError(message)
    return model


def _correspondence(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> Correspondence:
    """Find the parameters that a checkpoint's tensors hold.

    Raises:
        UntracedError: If `transformers` cannot convert the tensors, for example because of unusual sizes in the config.
    """
    from .tracing.correspondence import correspondence
    from .tracing.models import as_untraced_errors

    with as_untraced_errors("the tensors cannot be compared with the model's parameters"):
        return correspondence(model, shapes)


def _missing_libraries() -> list[str]:
    return [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]


def traced_candidates(candidates: Sequence[Candidate], trace: Trace) -> list[Candidate]:
    """Return candidates with the layouts and reasons of a trace, as an argument of `with_layouts`.

    A candidate that has a layout or a reason already keeps it.
    """
    return [_traced_candidate(candidate, trace) for candidate in candidates]


def _traced_candidate(candidate: Candidate, trace: Trace) -> Candidate:
    layout, reason = trace.layouts.get(candidate.name), trace.dense_reasons.get(candidate.name)
    if layout is not None and candidate.layout is None:
        candidate = replace(candidate, layout=layout)
    if reason is None or candidate.dense_by_default_reason is not None:
        return candidate
    return replace(candidate, dense_by_default_reason=reason, only_by_name=True)


def _make_trace(
    observations: Observations,
    correspondence: Correspondence,
    parameter_shapes: Mapping[str, tuple[int, ...]],
    shapes: Mapping[str, tuple[int, ...]],
) -> Trace:
    """Transfer the results for the model's parameters to the checkpoint's tensors.

    Args:
        observations: Axes, reasons and parts of the model's parameters.
        correspondence: The parameters that each tensor holds.
        parameter_shapes: Shapes of the parameters, by name.
        shapes: Shapes of the checkpoint's tensors, by name.
    """
    layouts, dense_reasons = {}, dict.fromkeys(correspondence.buffers, BUFFER)
    for name, sources in correspondence.sources.items():
        layout = _layout(sources, observations, parameter_shapes, shapes[name])
        reasons = [observations.reasons.get(source.parameter) for source in sources]
        reason = next((reason for reason in reasons if reason is not None), None)
        if layout is not None:
            layouts[name] = layout
        if reason is not None:
            dense_reasons[name] = reason
    notes = _notes(correspondence, shapes, traced_names=layouts.keys() | dense_reasons.keys())
    return Trace(layouts, dense_reasons, correspondence.tied, [*observations.notes, *notes])


def _layout(
    sources: Sequence[Source],
    observations: Observations,
    parameter_shapes: Mapping[str, tuple[int, ...]],
    shape: Sequence[int],
) -> Layout | None:
    """Return the layout of a tensor; None if a source's axes are not certain, or two sources imply different axes."""
    distinct_axes = {_axes(source, observations, shape) for source in sources}
    axes = next(iter(distinct_axes)) if len(distinct_axes) == 1 else None
    if axes is None:
        return None
    rows = shape[axes.index("out")]
    if len(sources) == 1:
        parts = observations.parts.get(sources[0].parameter, ())
    else:
        names = [source.parameter for source in sources]
        parts = tuple(parameter_shapes[name][observations.axes[name].index("out")] for name in names)
    return Layout(axes, parts if sum(parts) == rows else (), rule="model")


def _axes(source: Source, observations: Observations, shape: Sequence[int]) -> tuple[AxisRole, ...] | None:
    """Return the axes that a source implies for a tensor of this shape; None if they are not certain."""
    from .tracing.axis_roles import axes_from

    parameter_axes = observations.axes.get(source.parameter)
    if parameter_axes is None:
        return None
    return axes_from([frozenset(parameter_axes[dim] for dim in dims) for dims in source.dims], shape)


def _notes(correspondence: Correspondence, shapes: Mapping[str, tuple[int, ...]], traced_names: set[str]) -> list[str]:
    notes = [
        f"{name!r} has the shape {list(shapes[name])}, but config.json says {list(shape)}, so {FALLBACK}"
        for name, shape in correspondence.shape_mismatches.items()
    ]
    unknown = [
        name
        for name, shape in shapes.items()
        if len(shape) >= 2 and name not in traced_names | correspondence.shape_mismatches.keys()
    ]
    if unknown:
        notes.append(
            f"the model shows no layout of {len(unknown)} tensor(s), such as {unknown[0]!r}: for them {FALLBACK}"
        )
    return notes
