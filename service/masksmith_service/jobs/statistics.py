"""What jobs need beside the weights: found, and checked by headers alone, before anything is queued."""

from __future__ import annotations

from collections.abc import Callable, Collection

from masksmith.layouts import FLOAT_DTYPES, WHOLE_BYTES
from masksmith_state.jobs.shards import PlannedTensor
from masksmith_wire.documents import MasksOptions, StatisticInput
from masksmith_wire.errors import Code, RequestError
from masksmith_wire.headers import Header, TensorEntry
from masksmith_wire.scores import KINDS, parse_scores, statistic_key, statistic_misfit
from masksmith_wire.updates import parse_update


class Statistics:
    """Finds the statistic that each weight of a job is scored by, and the Gram matrix that updates it.

    Args:
        options: The job's scores and update, and the calibration file that they are made from.
        header_of: Reads an upload's header by its digest.

    Raises:
        RequestError: If the job takes no calibration.
    """

    def __init__(self, options: MasksOptions, header_of: Callable[[str], Header]) -> None:
        self._method, self._file, self._header_of = parse_scores(options.scores), options.calibration, header_of
        self._update = None if options.update is None else parse_update(options.update)
        if self._file is not None and not self._method.kinds and self._update is None:
            raise _refused(f"scores {options.scores!r} are made from the weights alone: leave the calibration out")

    def check_names(self, weights: Collection[str]) -> None:
        """Refuse a calibration of layers that the model does not have: it is another model's.

        Raises:
            RequestError: Naming the layer.
        """
        if self._file is None:
            return
        for key in self._header_of(self._file).tensors:
            name, _, kind = key.rpartition("/")
            layer = name if kind in KINDS and name else key
            if layer not in weights:
                raise _refused(f"the calibration is for a layer {layer!r}, which the file does not hold", tensor=layer)

    def missing(self, name: str) -> str | None:
        """Say that a weight is not calibrated, or None when it is or need not be."""
        if self._file is None:
            return None
        held, keys = self._header_of(self._file).tensors, [statistic_key(name, kind) for kind in self._method.kinds]
        if keys and not any(key in held for key in keys):
            return f"not calibrated: the calibration holds no {keys[-1]!r}"
        gram = statistic_key(name, "gram")
        return f"not calibrated: the calibration holds no {gram!r}" if self._update and gram not in held else None

    def find(self, name: str, weight: TensorEntry, named: StatisticInput | None = None) -> PlannedTensor | None:
        """Locate what a weight's scores are made from; None where the weight is enough.

        Raises:
            RequestError: If it is missing, not what the scores are made from, or of another shape.
        """
        kinds = self._method.kinds
        if named is not None and named.kind not in kinds:
            wanted = f"made from {' or '.join(kinds)}" if kinds else "made from the weights alone"
            raise _refused(f"tensor {name!r}: {self._method} scores are {wanted}, not from {named.kind}", tensor=name)
        if named is not None:
            return self._located(name, weight, named.kind, named.digest, named.key)
        if self._file is not None and kinds:
            reason = self.missing(name)
            if reason is not None:
                raise _refused(f"tensor {name!r}: {reason}", tensor=name)
            held = self._header_of(self._file).tensors
            kind = next(kind for kind in kinds if statistic_key(name, kind) in held)
            return self._located(name, weight, kind, self._file, statistic_key(name, kind))
        if not self._method.is_optional:
            raise _refused(f"tensor {name!r}: {self._method} scores need a calibration: {kinds[0]}", tensor=name)
        return None

    def find_gram(self, name: str, weight: TensorEntry, named: StatisticInput | None = None) -> PlannedTensor | None:
        """Locate what a weight's update needs; None where nothing is to be updated.

        Raises:
            RequestError: If it is missing or of another shape, not wanted, or the weight cannot be updated.
        """
        if self._update is None:
            if named is not None:
                raise _refused(f"tensor {name!r}: gram goes with update=reconstruct or update=admm", tensor=name)
            return None
        if weight.dtype not in FLOAT_DTYPES:
            detail = f"tensor {name!r}: dtype {weight.dtype} cannot hold updated weights"
            raise RequestError(422, Code.TENSOR_DOES_NOT_FIT, detail, tensor=name)
        if named is not None and named.kind != "gram":
            raise _refused(f"tensor {name!r}: an update needs its gram, not {named.kind}", tensor=name)
        if named is not None:
            return self._located(name, weight, "gram", named.digest, named.key)
        if self._file is None:
            raise _refused(f"tensor {name!r}: {self._update.name} needs a calibration: gram", tensor=name)
        return self._located(name, weight, "gram", self._file, statistic_key(name, "gram"))

    def _located(self, name: str, weight: TensorEntry, kind: str, digest: str, key: str) -> PlannedTensor:
        entry = self._header_of(digest).tensors.get(key)
        if entry is None:
            raise _refused(f"tensor {name!r}: upload {digest} holds no {key!r}", tensor=name)
        fault = statistic_misfit(kind, entry.shape, weight.shape)
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
    return RequestError(422, Code.INVALID_CALIBRATION, detail, tensor=tensor)
