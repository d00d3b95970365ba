"""Selects tensors of files by names and globs, or by the default rule, and locates them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from masksmith.layouts import Layout, LayoutError, Selection
from masksmith.patterns import TensorPatterns, UnmatchedSelectorError
from masksmith_service.bounds.table import limit
from masksmith_service.errors import RequestError
from masksmith_state.jobs.shards import PlannedTensor, Source
from masksmith_wire.errors import Code
from masksmith_wire.headers import Header
from masksmith_wire.specification import JobSpecification

from .located_tensors import candidate_of, file_members, locate, select_tensors, with_own_patterns
from .options import FileOptions, parse_patterns

MAX_GLOB_STEPS = limit("glob_steps")


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model: files in a root, which have references, or uploads.

    Attributes:
        file_of: Which file each tensor is in, by the tensor's name: the file's reference, or the digest of the upload.
        sources: The files in a root, by reference; empty for uploads.
        config: The model's `config.json`; None if it has none, and for uploads.
    """

    file_of: Mapping[str, str]
    sources: Mapping[str, Source]
    config: Mapping[str, Any] | None


def locate_selected(
    options: FileOptions,
    specification: JobSpecification,
    files: Mapping[str, Header],
    model: ModelFiles | None = None,
) -> tuple[list[PlannedTensor], Selection]:
    """Select tensors of files by the options `layers` and `exclude`, as `select_tensors` does, and locate them.

    Args:
        options: The options of the request.
        specification: The job's specification.
        files: Headers of the files, by reference if `model` is set, else by the digest of the upload.
        model: The files of a model in a root; None for uploads.

    Returns:
        The selected tensors, located; and the selection, which has a reason for each tensor that is not selected.

    Raises:
        RequestError: If a pattern or layout is invalid, a name, glob or selector matches nothing, globs and names are
            too long to match, a tensor given by its full name does not fit, no tensor is selected, two files have a
            tensor of the same name, or the job has a budget and a selected tensor has a layout that is not plain
            (see `Layout.is_plain`).
    """
    if model is None:
        model = ModelFiles(_digest_by_tensor(files), {}, None)
    file_of = model.file_of
    _check_globs(options, file_of)
    candidates = [candidate_of(name, files[file].tensors[name], files[file]) for name, file in file_of.items()]
    user_layouts = _parse_layouts(options.layout)
    specification_by_tensor = _specifications_of(parse_patterns(options), list(file_of), specification)
    selection, layouts = select_tensors(
        candidates,
        specification,
        specification_by_tensor,
        user_layouts,
        options.layers,
        options.exclude,
        model.config,
    )
    planned_tensors = []
    for name in selection.chosen:
        file = file_of[name]
        entry, own_specification = files[file].tensors[name], specification_by_tensor[name]
        planned_tensors.append(locate(name, file_members(file, model.sources), entry, layouts[name], own_specification))
    return with_own_patterns(planned_tensors, specification_by_tensor, specification), selection


def _digest_by_tensor(files: Mapping[str, Header]) -> dict[str, str]:
    """Return the digest of the file of each tensor, by the tensor's name.

    Raises:
        RequestError: If two files have a tensor of the same name.
    """
    digest_of: dict[str, str] = {}
    for digest, header in files.items():
        for name in header.tensors:
            if digest_of.setdefault(name, digest) != digest:
                detail = f"two of the files have a tensor {name!r}; the names in a job must be unique"
                raise RequestError(Code.INVALID_DOCUMENT, detail, tensor=name)
    return digest_of


def _check_globs(options: FileOptions, names: Collection[str]) -> None:
    """Reject globs and selectors that would take too long to match with all names.

    Matching takes time even for empty texts and names, so each of them is counted with one more character.

    Raises:
        RequestError: If there are too many characters.
    """
    texts = [*options.layers, *options.exclude, *options.pattern, *options.layout]
    of_texts, of_names = (sum(len(text) + 1 for text in group) for group in (texts, names))
    if of_texts * of_names > MAX_GLOB_STEPS:
        detail = (
            f"characters, and one more for each text: the globs and selectors have {of_texts}, and the names of the "
            f"file's {len(names)} tensors {of_names}; the product must not exceed {MAX_GLOB_STEPS}: use fewer or "
            "shorter globs"
        )
        raise RequestError(Code.TOO_MANY_GLOBS, detail, limit=MAX_GLOB_STEPS)


def _specifications_of(
    patterns: TensorPatterns, names: Sequence[str], specification: JobSpecification
) -> dict[str, JobSpecification]:
    """Return the specification of each tensor that has a pattern, by the tensor's name.

    Raises:
        RequestError: If a selector selects no tensor.
    """
    if patterns.is_single:
        return dict.fromkeys(names, specification)
    with_pattern = cache(specification.with_own_pattern)
    try:
        return {name: with_pattern(str(pattern)) for name, pattern in patterns.assign(names).items()}
    except UnmatchedSelectorError as error:
        raise RequestError(Code.UNKNOWN_TENSOR, str(error), tensor=error.selector[:512]) from None


def _parse_layouts(texts: list[str]) -> dict[str, Layout]:
    """Return the layouts of texts such as `w1=stack in out`, by tensor name.

    Raises:
        RequestError: If a text is malformed, or two texts are for the same tensor.
    """
    layouts: dict[str, Layout] = {}
    for text in texts:
        name, separator, axes = text.rpartition("=")
        if not separator:
            raise RequestError(Code.INVALID_LAYOUT, f"layout {text!r} is not NAME=AXES, such as 'w1=stack in out'")
        if name in layouts:
            detail = f"layout {text!r}: there is another layout for the same tensor"
            raise RequestError(Code.INVALID_LAYOUT, detail, tensor=name)
        try:
            layouts[name] = Layout.parse(axes)
        except LayoutError as error:
            raise RequestError(Code.INVALID_LAYOUT, f"layout {text!r}: {error}", tensor=name) from None
    return layouts
