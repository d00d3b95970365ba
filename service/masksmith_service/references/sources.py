"""Reads the headers of the files in roots that a job document names."""

from __future__ import annotations

from masksmith_service.auth.principal import Principal
from masksmith_service.jobs.selected_tensors import ModelFiles
from masksmith_service.resources import State
from masksmith_state.jobs.shards import Source
from masksmith_wire.documents import MasksOptions, MasksRequest
from masksmith_wire.headers import Header
from masksmith_wire.locations import is_reference
from masksmith_wire.model_files import WEIGHTS_SUFFIX
from masksmith_wire.output_names import MASKS_NAME

from .access import LocatedPath, find_readable
from .models import Model, ModelReader


def read_references(
    state: State, principal: Principal, options: MasksOptions, reader: ModelReader
) -> tuple[dict[str, Source], dict[str, Header]]:
    """Read state and header of every file in a root that a request names, by reference.

    Args:
        state: Resources of the application.
        principal: Who sent the request.
        options: The request.
        reader: Reads headers within the bounds of the request.

    Raises:
        RequestError: If a reference is in no root, the principal has no right to it, there is no such file, or it is
            not a safetensors file.
    """
    sources, headers = dict[str, Source](), dict[str, Header]()
    named = options.tensors if isinstance(options, MasksRequest) else []
    parts = (part for tensor in named for part in (tensor, tensor.statistic, tensor.gram))
    references = [part.reference for part in parts if part is not None and part.reference is not None]
    if options.calibration is not None and is_reference(options.calibration):
        references.append(options.calibration)
    places = {reference: find_readable(state.roots, principal, reference) for reference in dict.fromkeys(references)}
    if options.previous is not None and is_reference(options.previous):
        places[options.previous] = _masks_file(find_readable(state.roots, principal, options.previous))
    for reference, place in places.items():
        file, headers[reference] = reader.header(place)
        sources[reference] = Source(location=place.location, version=file.version)
    return sources, headers


def _masks_file(place: LocatedPath) -> LocatedPath:
    """The masks file that a reference names: the file itself, or that of an output."""
    return place if place.path.endswith(WEIGHTS_SUFFIX) else place.child(MASKS_NAME)


def model_files(model: Model) -> tuple[dict[str, Header], ModelFiles]:
    """Return the headers of a model's files by reference, and where its tensors are."""
    locations = {name: model.folder.child(name).location for name in model.files}
    headers = {locations[name]: header for name, (_, header) in model.files.items()}
    sources = {
        locations[name]: Source(location=locations[name], version=state.version)
        for name, (state, _) in model.files.items()
    }
    file_of = {tensor: locations[file] for tensor, file in model.weight_map.items()}
    return headers, ModelFiles(file_of, sources, model.config)
