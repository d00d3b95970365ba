"""Masks as a mapping from names to numpy arrays or torch tensors, each of which is read from a file at each look-up."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from masksmith.patterns.matching import describe_unknown_names
from masksmith_client._errors import InputError, WireError
from masksmith_client._job_view import JobView
from masksmith_client.submission.expected_tensor import ExpectedTensor
from masksmith_client.submission.streamed_tensor import BoolMask, Restore, as_numpy
from masksmith_wire.headers import Header, TensorEntry
from masksmith_wire.json_text import DuplicateMemberError
from masksmith_wire.masks import METADATA_KEY, MaskInfo, file_header, pack, packed_width, read_infos, unpack

from .atomic_write import atomic_write
from .checks import check_mask, check_names, pattern_violation
from .proofs import CheckedProof, check_assumed_scores, check_proof, in_shape_of_mask, kept_objective, scores_of
from .tensor_file import TensorFile
from .tensor_file_names import check_tensor_file_name


class Masks(TensorFile):
    """Masks by the names of their weights; True = kept, in the weight's shape.

    A mask is a torch tensor on the weight's device if the weight was submitted as a torch tensor, else, as in an opened
    file, a numpy array. It is unpacked at each look-up: on disk it takes one bit per entry, except in a file of bool
    tensors.

    Attributes:
        job: The job that computed them; None for an opened file.
        infos: Shape, layout, pattern, axis, ragged and digests of each mask; empty in a file of another program.
    """

    def __init__(
        self, file: BinaryIO, job: JobView | None = None, restore: Mapping[str, Restore] | None = None
    ) -> None:
        super().__init__(file, restore)
        self.job = job
        self._path: Path | None = None
        try:
            self.infos: Mapping[str, MaskInfo] = read_infos(self._header.metadata)
        except DuplicateMemberError as error:
            raise ValueError(f"its list of masks is ambiguous: {error}") from None
        except ValueError:  # another program wrote the metadata
            self.infos = {}
        self._names_with_unchecked_pattern: set[str] = set()
        self._names_with_checked_digests: set[str] = set()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Masks:
        """Open a masks file, or any safetensors file of bool tensors.

        Raises:
            InputError: If the file cannot be read, or has other tensors than masks.
        """
        try:
            file = Path(path).open("rb")  # noqa: SIM115 - closed with the mapping
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from None
        try:
            masks = cls(file)
            masks._check_dtypes()
            masks._path = Path(path).absolute()
        except ValueError as error:
            file.close()
            raise InputError(f"{path}: {error}") from None
        return masks

    @property
    def path(self) -> Path | None:
        """The path of an opened file; None for a download, after `close`, or if the file is no longer at this path."""
        try:
            is_there = self._path is not None and os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except (OSError, ValueError):  # a closed file has no descriptor
            return None
        return self._path if is_there else None

    @staticmethod
    def is_masks_header(header: Header) -> bool:
        """Whether a header is that of a masks file or of a file of bool tensors, and not of a file of weights."""
        dtypes = {entry.dtype for entry in header.tensors.values()}
        return dtypes == {"BOOL"} or (METADATA_KEY in header.metadata and dtypes <= {"BOOL", "U8"})

    def check(self, expected: Mapping[str, ExpectedTensor]) -> None:
        """Check that the file holds exactly these masks, and that the bytes of each mask match its digests.

        The pattern of a downloaded mask is checked when the mask is first read, or when all masks are saved. In an
        opened file, only `verify` checks patterns.

        Raises:
            WireError: If the file holds other masks, or a mask does not match its digests.
        """
        check_names(self._header, expected, "masks")
        for name, entry in self._entries.items():
            check_mask(entry, self.infos.get(name), expected[name])
            self._check_digest(name)
        self._names_with_unchecked_pattern = set(self._entries)

    def verify(
        self, weights: Mapping[str, Any], *, scores: Mapping[str, Any] | None = None, prove: bool = False
    ) -> dict[str, CheckedProof]:
        """Check again what the job claims about its masks: the score that each mask keeps, and the bound.

        Digests and patterns are checked, too; a file that another program wrote may lack them.
        The score that a mask keeps is the sum of the scores of its kept entries; for blocks with another norm than l1,
        the sum of the norms of its kept blocks. Scores that are not in `scores` are computed from the weights. The
        service sends a bound, and not the duals from which it computed the bound: with `prove`, a bound is computed
        here, which takes as long as solving. Masks of an opened file have no job: scores that are not in `scores` are
        magnitudes, and the score that a mask keeps is not compared with a claim.

        Args:
            weights: The weights by name, as they were submitted; at least those of the masks that `scores` lacks.
                Convolutions whose masks are flat may have their own shape.
            scores: Scores by name; needed for each weight whose scores the job computed from a statistic, or
                received separately from the weight.
            prove: Whether to compute a bound here.

        Returns:
            The result for each mask, by name; a claim that does not hold is no error: see `CheckedProof.ok`.

        Raises:
            InputError: If a weight or needed scores are missing; if `scores` has a name without a mask; if shapes
                differ; or if `prove` is set and a mask's pattern is not known.
            WireError: If a mask does not match its digests, or violates its pattern.
        """
        missing = sorted(set(self) - set(weights) - set(scores or {}))
        if missing:
            raise InputError(f"the weight of the mask {missing[0]!r} is missing")
        unknown = describe_unknown_names(scores or {}, self.keys())
        if unknown is not None:
            raise InputError(f"scores= has names without a mask: {unknown}")
        method = "magnitude" if self.job is None else self.job.document.scores
        reports = {} if self.job is None else {report.name: report for report in self.job.document.tensors}
        scores_by_name, proofs = scores or {}, {}
        for name in self:
            mask, info, report = self._unpack_and_check(self._entries[name]), self.infos.get(name), reports.get(name)
            is_scored_here = name not in scores_by_name
            values = in_shape_of_mask(weights[name] if is_scored_here else scores_by_name[name], mask.shape)
            mask_scores = scores_of(method, values, name, info) if is_scored_here else values
            objective = kept_objective(name, mask, mask_scores, info)
            if is_scored_here:  # For the method `given`, `scores_of` assumes that the weight itself is the scores.
                check_assumed_scores(method, name, objective, report)
            proofs[name] = check_proof(name, objective, mask_scores, info, report, prove=prove)
        return proofs

    def save(self, path: str | Path) -> Path:
        """Write the masks to a safetensors file, atomically; returns its path.

        The service's file has one digest per solved part of a mask; they are replaced by one digest of the whole mask,
        as local solves write it. An opened file is copied as it is.

        Raises:
            InputError: If the path has the suffix of another format than safetensors.
            WireError: If a downloaded mask that was not read before violates its pattern.
        """
        check_tensor_file_name(Path(path))
        for name in list(self._names_with_unchecked_pattern):
            self._unpack_and_check(self._entries[name])
        if self.job is None:
            return super().save(path)
        target, entries = Path(path), sorted(self._entries.values(), key=lambda entry: entry.start)
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as file:
            infos = {entry.name: self.infos[entry.name].with_digest(self._stored(entry)) for entry in entries}
            file.write(file_header(infos))
            for entry in entries:
                file.write(self._stored(entry).data)
        return target

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a mask without reading it."""
        entry = self._entries[name]
        return entry.shape if entry.dtype == "BOOL" else tuple(self.infos[name].shape)

    def rows(self, name: str, first: int, last: int) -> BoolMask:
        """Read rows `first` to `last` (exclusive) of a mask viewed as the matrix `[prod(shape[:-1]), shape[-1]]`.

        The result is a numpy array. Digests, and the pattern of a downloaded mask, are checked when rows of
        the mask are read for the first time.
        """
        entry, cols = self._entries[name], (self.shape(name) or (1,))[-1]
        self._check_digest(name)
        if name in self._names_with_unchecked_pattern:
            self._unpack_and_check(entry)
        width = cols if entry.dtype == "BOOL" else packed_width((cols,))
        part = np.frombuffer(self._read(entry.start + first * width, entry.start + last * width), np.uint8)
        part = part.reshape(last - first, width)
        return part.view(np.bool_).copy() if entry.dtype == "BOOL" else unpack(part, (last - first, cols))

    def __getitem__(self, name: str) -> Any:
        restore: Restore = self._restore.get(name, as_numpy)
        return restore(self._numpy(self._entries[name]))

    def _numpy(self, entry: TensorEntry) -> BoolMask:
        """Return a mask as a bool array, after the checks of its digests and its pattern that were not yet done.

        Raises:
            WireError: If the mask does not match its digests, or a downloaded mask violates its pattern.
        """
        is_unchecked = entry.name in self._names_with_unchecked_pattern
        return self._unpack_and_check(entry) if is_unchecked else self._unpack(entry)

    def _unpack_and_check(self, entry: TensorEntry) -> BoolMask:
        """Return a mask as a bool array, after checking its digests and its pattern; a file may lack either."""
        mask, info = self._unpack(entry), self.infos.get(entry.name)
        violation = None if info is None else pattern_violation(mask, info)
        if info is not None and violation is not None:
            raise WireError(f"the mask of {entry.name!r} violates its pattern {info.pattern!r}: {violation}")
        self._names_with_unchecked_pattern.discard(entry.name)
        return mask

    def _unpack(self, entry: TensorEntry) -> BoolMask:
        self._check_digest(entry.name)
        array = self._stored(entry)
        return array.view(np.bool_).copy() if entry.dtype == "BOOL" else unpack(array, self.infos[entry.name].shape)

    def _check_digest(self, name: str) -> None:
        """Check the digests of a mask, once; a mask that another program wrote has none.

        Raises:
            WireError: If the mask's bytes do not match these digests.
        """
        info, entry = self.infos.get(name), self._entries[name]
        if info is None or not info.digests or name in self._names_with_checked_digests:
            return
        stored = self._stored(entry)
        packed = pack(stored != 0) if entry.dtype == "BOOL" else stored
        violation = info.digest_violation(name, packed)
        if violation is not None:
            raise WireError(violation)
        self._names_with_checked_digests.add(name)

    def _stored(self, entry: TensorEntry) -> npt.NDArray[np.uint8]:
        """Return the bytes of a mask as they are in the file, in the shape that they have there."""
        return np.frombuffer(self._read(entry.start, entry.stop), np.uint8).reshape(entry.shape)

    def _check_dtypes(self) -> None:
        for entry in self._entries.values():
            if entry.dtype != "BOOL" and not self._is_packed(entry):
                raise InputError(f"{entry.name!r} is not a mask: dtype {entry.dtype}, expected bool or a packed mask")

    def _is_packed(self, entry: TensorEntry) -> bool:
        if entry.dtype != "U8" or entry.name not in self.infos:
            return False
        shape = tuple(self.infos[entry.name].shape)
        return bool(shape) and entry.shape == (*shape[:-1], packed_width(shape))
