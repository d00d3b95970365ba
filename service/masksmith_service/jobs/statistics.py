"""What jobs need beside the weights: located, and checked by headers alone, before anything is queued."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from masksmith.layouts import FLOAT_DTYPES, WHOLE_BYTES
from masksmith_service.errors import RequestError
from masksmith_state.jobs.shards import PlannedTensor
from masksmith_wire.documents import Skipped, StatisticInput, TensorInput
from masksmith_wire.errors import Code
from masksmith_wire.headers import Header
from masksmith_wire.scores import KINDS, statistic_key, statistic_misfit
from masksmith_wire.specification import JobSpecification


def check_calibrated_names(calibration: Header, weights: Collection[str]) -> None:
    """Refuse a calibration of layers that the model does not have: it is another model's.

    Raises:
        RequestError: Naming the layer.
    """
    for key in calibration.tensors:
        name, _, kind = key.rpartition("/")
        layer = name if kind in KINDS and name else key
        if layer not in weights:
            raise _refused(f"the calibration is for a layer {layer!r}, which the file does not hold", tensor=layer)


def add_statistics(
    tensors: list[PlannedTensor],
    specification: JobSpecification,
    headers: Mapping[str, Header],
    *,
    named: Mapping[str, TensorInput],
    required: Collection[str],
) -> tuple[list[PlannedTensor], list[Skipped]]:
    """Locate the statistic that each weight is scored by, and the Gram matrix that updates it.

    Args:
        tensors: The weights.
        specification: The job's scores and update, and the calibration file that they are made from.
        headers: Of all uploads that the job reads, by digest.
        named: What a document says of each weight, by name.
        required: Weights that must be calibrated if there is a calibration; others are skipped if they are not.

    Returns:
        The weights with their statistics, and those that are skipped.

    Raises:
        RequestError: If the job takes no calibration, or a weight lacks what it needs.
    """
    finder = _StatisticFinder(specification, headers)
    complete, skipped = [], []
    for tensor in tensors:
        reason = None if tensor.name in required else finder.missing(tensor.name)
        if reason is not None:
            skipped.append(Skipped(name=tensor.name, reason=reason))
            continue
        wanted = named.get(tensor.name)
        statistic = finder.find(tensor, None if wanted is None else wanted.statistic)
        gram = finder.find_gram(tensor, None if wanted is None else wanted.gram)
        if specification.update is not None and specification.scores.name == "given" and statistic is None:
            detail = f"tensor {tensor.name!r}: it holds scores, and an update wants weights; send the scores as the "
            raise _refused(detail + "calibration", tensor=tensor.name)
        complete.append(tensor.model_copy(update={"statistic": statistic, "gram": gram}))
    return complete, skipped


class _StatisticFinder:
    def __init__(self, specification: JobSpecification, headers: Mapping[str, Header]) -> None:
        self._method, self._update, self._headers = specification.scores, specification.update, headers
        self._file = specification.options.calibration
        if self._file is not None and not self._method.kinds and self._update is None:
            scores = str(self._method)
            raise _refused(f"scores {scores!r} are made from the weights alone: leave the calibration out")

    def missing(self, name: str) -> str | None:
        """Say that a weight is not calibrated, or None when it is or need not be."""
        if self._file is None:
            return None
        held, keys = self._headers[self._file].tensors, [statistic_key(name, kind) for kind in self._method.kinds]
        if keys and not any(key in held for key in keys):
            return f"not calibrated: the calibration holds no {keys[-1]!r}"
        gram = statistic_key(name, "gram")
        return f"not calibrated: the calibration holds no {gram!r}" if self._update and gram not in held else None

    def find(self, weight: PlannedTensor, named: StatisticInput | None) -> PlannedTensor | None:
        """Locate what a weight's scores are made from; None where the weight is enough."""
        name, kinds = weight.name, self._method.kinds
        if named is not None and named.kind not in kinds:
            wanted = f"made from {' or '.join(kinds)}" if kinds else "made from the weights alone"
            raise _refused(f"tensor {name!r}: {self._method} scores are {wanted}, not from {named.kind}", tensor=name)
        if named is not None:
            return self._located(weight, named.kind, named.digest, named.key)
        if self._file is not None and kinds:
            reason = self.missing(name)
            if reason is not None:
                raise _refused(f"tensor {name!r}: {reason}", tensor=name)
            held = self._headers[self._file].tensors
            kind = next(kind for kind in kinds if statistic_key(name, kind) in held)
            return self._located(weight, kind, self._file, statistic_key(name, kind))
        if not self._method.is_optional:
            raise _refused(f"tensor {name!r}: {self._method} scores need a calibration: {kinds[0]}", tensor=name)
        return None

    def find_gram(self, weight: PlannedTensor, named: StatisticInput | None) -> PlannedTensor | None:
        """Locate what a weight's update needs; None where nothing is to be updated."""
        name = weight.name
        if self._update is None:
            if named is not None:
                raise _refused(f"tensor {name!r}: gram goes with update=reconstruct or update=admm", tensor=name)
            return None
        if weight.dtype not in FLOAT_DTYPES:
            detail = f"tensor {name!r}: dtype {weight.dtype} cannot hold updated weights"
            raise RequestError(Code.TENSOR_DOES_NOT_FIT, detail, tensor=name)
        if named is not None and named.kind != "gram":
            raise _refused(f"tensor {name!r}: an update needs its gram, not {named.kind}", tensor=name)
        if named is not None:
            return self._located(weight, "gram", named.digest, named.key)
        if self._file is None:
            raise _refused(f"tensor {name!r}: {self._update.name} needs a calibration: gram", tensor=name)
        return self._located(weight, "gram", self._file, statistic_key(name, "gram"))

    def _located(self, weight: PlannedTensor, kind: str, digest: str, key: str) -> PlannedTensor:
        name = weight.name
        entry = self._headers[digest].tensors.get(key)
        if entry is None:
            raise _refused(f"tensor {name!r}: upload {digest} holds no {key!r}", tensor=name)
        fault = statistic_misfit(kind, entry.shape, tuple(weight.shape), weight.layout)
        if entry.dtype not in FLOAT_DTYPES:
            fault = f"{kind} of dtype {entry.dtype}: expected one of {', '.join(sorted(FLOAT_DTYPES))}"
        if kind in ("gram", "activations") and entry.stop - entry.start > WHOLE_BYTES:
            hint = "; use the library" if self._update else "; send inverse_diagonal instead"
            hint = hint if kind == "gram" else "; send fewer samples"
            fault = f"{kind} of more than the {WHOLE_BYTES} bytes that go to one worker{hint}"
        if fault is not None:
            raise _refused(f"tensor {name!r}: {fault}", tensor=name)
        return PlannedTensor(name=kind, digest=digest, dtype=entry.dtype, shape=list(entry.shape), start=entry.start)


def _refused(detail: str, tensor: str | None = None) -> RequestError:
    return RequestError(Code.INVALID_CALIBRATION, detail, tensor=tensor)
