"""Finds versions and headers: of the files that a request names by reference, and of the files of a model."""

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
    """Read the version and header of every file that a request names by reference, except the files of its model.

    The files that are read are those of tensors, statistics and Gram matrices, the calibration, and the previous masks.

    Args:
        state: Resources of the application.
        principal: Who sent the request.
        options: The request; it lists tensors, each with its file, only if it is a `MasksRequest`.
        reader: Reads headers within the bounds of the request.

    Returns:
        The sources and the headers of the files, two dictionaries with the references as keys.

    Raises:
        RequestError: If a reference is in no root, the principal may not read that root, the file does not exist, or it
            is not a safetensors file; or as `ModelReader.state_and_header` does.
    """
    sources, headers = dict[str, Source](), dict[str, Header]()
    tensors = options.tensors if isinstance(options, MasksRequest) else []
    inputs = (file_input for tensor in tensors for file_input in (tensor, tensor.statistic, tensor.gram))
    references = [
        file_input.reference for file_input in inputs if file_input is not None and file_input.reference is not None
    ]
    if options.calibration is not None and is_reference(options.calibration):
        references.append(options.calibration)
    targets = {reference: find_readable(state.roots, principal, reference) for reference in dict.fromkeys(references)}
    if options.previous is not None and is_reference(options.previous):
        targets[options.previous] = _masks_file(find_readable(state.roots, principal, options.previous))
    for reference, target in targets.items():
        file_state, headers[reference] = reader.state_and_header(target)
        sources[reference] = Source(location=target.location, version=file_state.version)
    return sources, headers


def _masks_file(target: LocatedPath) -> LocatedPath:
    """Return the masks file that a reference names: the file itself, or the masks file in an output's directory."""
    return target if target.path.endswith(WEIGHTS_SUFFIX) else target.child(MASKS_NAME)


def model_files(model: Model) -> tuple[dict[str, Header], ModelFiles]:
    """Return the headers of a model's weight files, with the references of the files as keys, and its `ModelFiles`."""
    locations = {name: model.folder.child(name).location for name in model.files}
    headers = {locations[name]: header for name, (_, header) in model.files.items()}
    sources = {
        locations[name]: Source(location=locations[name], version=file_state.version)
        for name, (file_state, _) in model.files.items()
    }
    file_of = {tensor: locations[file] for tensor, file in model.weight_map.items()}
    return headers, ModelFiles(file_of, sources, model.config)
