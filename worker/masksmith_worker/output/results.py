"""Reads the results of a job's shards (reports, masks, updated weights) for the writing of an output file."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from masksmith_state.blobs.names import result_name, weights_name
from masksmith_state.blobs.store import BlobStore
from masksmith_state.errors import DamagedBlobError, ReplacedBlobError
from masksmith_state.jobs.reports import ShardReport


class ShardResults:
    """Results of a job's shards.

    All stored reports are read when this object is made. Masks and weights are read on request and checked; a shard
    whose mask or weights are missing or damaged is solved again.

    Args:
        store: Contains masks and weights.
        read_reports: Reads all stored reports, by the shard's index.
        ensure_solved: If another worker is solving a shard, waits for it. If the store then has no intact result,
            solves the shard in this process. Returns the report of the shard.
    """

    def __init__(
        self,
        store: BlobStore,
        read_reports: Callable[[], Mapping[int, ShardReport]],
        ensure_solved: Callable[[int], ShardReport],
    ) -> None:
        self._store, self._read_reports, self._ensure_solved = store, read_reports, ensure_solved
        self._reports: dict[int, ShardReport] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read all stored reports again; add those with a result to the reports that are known.

        Two kinds of shards have no result: failed ones, and those that write a file of the output instead of solving.
        """
        reports = self._read_reports()
        self._reports |= {index: report for index, report in reports.items() if report.result is not None}

    def report(self, index: int) -> ShardReport:
        """Return the report of a shard; if no report with a result was read, the shard is solved first.

        Raises:
            ShardFailedError: If the shard failed in another worker, or cannot be solved in this process.
        """
        if index not in self._reports:
            self._reports[index] = self._ensure_solved(index)
        return self._reports[index]

    def mask(self, index: int) -> bytes:
        """Read the packed mask of a shard.

        Raises:
            ShardFailedError: As `report` does.
            FileNotFoundError, DamagedBlobError: If the mask is still missing or damaged after solving the shard again.
            ReplacedBlobError: If solving the shard again gives another result than before: the job's document and the
                files that are already written have the first result.
        """
        return self._read(index, lambda report: self._store.get(result_name(str(report.result)), report.mask_digest))

    def weights(self, index: int) -> bytes:
        """Read the updated weights of a shard; raises as `mask` does."""
        return self._read(
            index, lambda report: self._store.get(weights_name(str(report.result)), report.weights_digest)
        )

    def _read(self, index: int, read: Callable[[ShardReport], bytes]) -> bytes:
        report = self.report(index)
        try:
            return read(report)
        except (FileNotFoundError, DamagedBlobError):
            new_report = self._ensure_solved(index)
        if (new_report.mask_digest, new_report.weights_digest) != (report.mask_digest, report.weights_digest):
            raise ReplacedBlobError(result_name(str(report.result)))
        self._reports[index] = new_report
        return read(new_report)
