"""Locates the calibration statistics of a job, and checks their names, shapes, dtypes and sizes from headers alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from masksmith.layouts import FLOAT_DTYPES, WHOLE_BYTES
from masksmith_service.errors import RequestError
from masksmith_state.jobs.shards import PlannedTensor, Source
from masksmith_wire.documents import Skipped, StatisticInput, TensorInput
from masksmith_wire.errors import Code
from masksmith_wire.headers import Header
from masksmith_wire.scores import KINDS, missing_reason, statistic_key, statistic_mismatch
from masksmith_wire.specification import JobSpecification

from .located_tensors import file_members


def check_calibrated_names(calibration: Header, weights: Collection[str]) -> None:
    """Reject a calibration file with statistics for a layer that is not among the names of a model's weights.

    Raises:
        RequestError: If there is such a layer.
    """
    names = frozenset(weights)  # With a list, the time would be the product of both numbers of names.
    for key in calibration.tensors:
        name, _, kind = key.rpartition("/")
        layer = name if kind in KINDS and name else key
        if layer not in names:
            raise _calibration_error(
                f"the calibration is for a layer {layer!r}, which the model does not have", tensor=layer
            )


def add_statistics(
    tensors: list[PlannedTensor],
    specification: JobSpecification,
    headers: Mapping[str, Header],
    sources: Mapping[str, Source],
    *,
    document_tensors: Mapping[str, TensorInput],
    required_names: Collection[str],
) -> tuple[list[PlannedTensor], list[Skipped]]:
    """Locate the statistic of each weight if its scores need one, and its Gram matrix if the job updates weights.

    Args:
        tensors: The weights.
        specification: The job's specification.
        headers: Headers of all files that the job reads, by digest or reference.
        sources: The files in roots, by reference.
        document_tensors: Tensors of the request's document, by name; empty if the request is no document.
        required_names: Names of the weights whose statistics must be found; other weights are skipped if the
            calibration file lacks a statistic for them.

    Returns:
        The weights with their statistics, and the skipped ones.

    Raises:
        RequestError: If the job has a calibration and needs none, a weight lacks a statistic and is not skipped, a
            statistic is of the wrong kind or does not fit its weight, or an update is not possible for a weight.
    """
    finder = _StatisticFinder(specification, headers, sources)
    complete, skipped = [], []
    for tensor in tensors:
        reason = None if tensor.name in required_names else finder.uncalibrated_reason(tensor.name)
        if reason is not None:
            skipped.append(Skipped(name=tensor.name, reason=reason))
            continue
        tensor_input = document_tensors.get(tensor.name)
        statistic = finder.find(tensor, None if tensor_input is None else tensor_input.statistic)
        gram = finder.find_gram(tensor, None if tensor_input is None else tensor_input.gram)
        if specification.update is not None and specification.scores.name == "given" and statistic is None:
            detail = "it holds scores, and an update needs weights; send the scores as the calibration"
            raise _calibration_error(f"tensor {tensor.name!r}: {detail}", tensor=tensor.name)
        complete.append(tensor.model_copy(update={"statistic": statistic, "gram": gram}))
    return complete, skipped


class _StatisticFinder:
    """Locates the statistics of a job's weights in the calibration file, or in the files that a document names."""

    def __init__(
        self, specification: JobSpecification, headers: Mapping[str, Header], sources: Mapping[str, Source]
    ) -> None:
        self._method, self._update, self._headers = specification.scores, specification.update, headers
        self._sources = sources
        self._file = specification.options.calibration
        if self._file is not None and not self._method.kinds and self._update is None:
            scores = str(self._method)
            raise _calibration_error(f"scores {scores!r} are computed from the weights alone: omit the calibration")

    def uncalibrated_reason(self, name: str) -> str | None:
        """Return why the calibration file does not calibrate a weight; None if it does, or if there is no file."""
        if self._file is None:
            return None
        if self._method.kinds and self._kind_in_file(name) is None:
            return missing_reason(name, self._method.kinds[-1])
        if self._update and statistic_key(name, "gram") not in self._headers[self._file].tensors:
            return missing_reason(name, "gram")
        return None

    def _kind_in_file(self, name: str) -> str | None:
        """Return the first of the score method's kinds that the calibration file has for a weight, or None."""
        assert self._file is not None
        entries = self._headers[self._file].tensors
        return next((kind for kind in self._method.kinds if statistic_key(name, kind) in entries), None)

    def find(self, weight: PlannedTensor, statistic_input: StatisticInput | None) -> PlannedTensor | None:
        """Locate the statistic for a weight's scores, by default in the calibration file; None if none is needed."""
        name, kinds = weight.name, self._method.kinds
        if statistic_input is not None and statistic_input.kind not in kinds:
            origins = " or ".join(kinds) if kinds else "the weights alone"
            detail = f"{self._method} scores are computed from {origins}, not from {statistic_input.kind}"
            raise _calibration_error(f"tensor {name!r}: {detail}", tensor=name)
        if statistic_input is not None:
            return self._locate(weight, statistic_input.kind, statistic_input.file, statistic_input.key)
        if self._file is not None and kinds:
            kind = self._kind_in_file(name)
            if kind is None:
                raise _calibration_error(f"tensor {name!r}: {missing_reason(name, kinds[-1])}", tensor=name)
            return self._locate(weight, kind, self._file, statistic_key(name, kind))
        if self._method.needs_statistic:
            raise _calibration_error(
                f"tensor {name!r}: {self._method} scores need a calibration: {kinds[0]}", tensor=name
            )
        return None

    def find_gram(self, weight: PlannedTensor, gram_input: StatisticInput | None) -> PlannedTensor | None:
        """Locate the Gram matrix for a weight's update, by default in the calibration file; None without an update."""
        name = weight.name
        if self._update is None:
            if gram_input is not None:
                raise _calibration_error(
                    f"tensor {name!r}: gram goes with update=reconstruct or update=admm", tensor=name
                )
            return None
        if weight.dtype not in FLOAT_DTYPES:
            detail = f"tensor {name!r}: dtype {weight.dtype} cannot hold updated weights"
            raise RequestError(Code.TENSOR_DOES_NOT_FIT, detail, tensor=name)
        if gram_input is not None and gram_input.kind != "gram":
            raise _calibration_error(f"tensor {name!r}: an update needs its gram, not {gram_input.kind}", tensor=name)
        if gram_input is not None:
            return self._locate(weight, "gram", gram_input.file, gram_input.key)
        if self._file is None:
            raise _calibration_error(f"tensor {name!r}: {self._update.name} needs a calibration: gram", tensor=name)
        return self._locate(weight, "gram", self._file, statistic_key(name, "gram"))

    def _locate(self, weight: PlannedTensor, kind: str, file: str, key: str) -> PlannedTensor:
        """Check that a statistic exists and fits its weight; return its location, with its kind as the name."""
        name = weight.name
        entry = self._headers[file].tensors.get(key)
        if entry is None:
            file_text = repr(file) if file in self._sources else f"upload {file}"
            raise _calibration_error(f"tensor {name!r}: {file_text} has no tensor {key!r}", tensor=name)
        reason = statistic_mismatch(kind, entry.shape, tuple(weight.shape), weight.layout)
        if entry.dtype not in FLOAT_DTYPES:
            reason = f"{kind} of dtype {entry.dtype}: expected one of {', '.join(sorted(FLOAT_DTYPES))}"
        if kind == "activations" and entry.stop - entry.start > WHOLE_BYTES:
            reason = f"{kind} of more than the {WHOLE_BYTES} bytes that go to one worker; send fewer samples"
        if reason is not None:
            raise _calibration_error(f"tensor {name!r}: {reason}", tensor=name)
        return PlannedTensor(
            name=kind,
            **file_members(file, self._sources),
            dtype=entry.dtype,
            shape=list(entry.shape),
            start=entry.start,
        )


def _calibration_error(detail: str, tensor: str | None = None) -> RequestError:
    return RequestError(Code.INVALID_CALIBRATION, detail, tensor=tensor)
