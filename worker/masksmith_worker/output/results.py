"""The results of a job's shards, as the writing of an output needs them: reports, masks and updated weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from masksmith_state.blobs.names import result_name, weights_name
from masksmith_state.blobs.store import BlobStore
from masksmith_state.errors import DamagedBlobError
from masksmith_state.jobs.reports import ShardReport


class ShardResults:
    """Results of a job's shards.

    Reports on record are read together; what they name is checked when it is read, and solved again if it is gone.

    Args:
        store: Contains masks and weights.
        read_reports: Reads all reports on record, by index.
        solved: Returns the report of a shard whose result is then in the store; waits for it, or solves it.
    """

    def __init__(
        self,
        store: BlobStore,
        read_reports: Callable[[], Mapping[int, ShardReport]],
        solved: Callable[[int], ShardReport],
    ) -> None:
        self._store, self._read_reports, self._solved = store, read_reports, solved
        self._reports: dict[int, ShardReport] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read all reports on record."""
        known = {index: report for index, report in self._read_reports().items() if report.result is not None}
        self._reports |= known

    def report(self, index: int) -> ShardReport:
        """Report of a shard that has a result.

        Raises:
            ShardFailedError: If it failed.
        """
        if index not in self._reports:
            self._reports[index] = self._solved(index)
        return self._reports[index]

    def mask(self, index: int) -> bytes:
        """Read the packed mask of a shard; raises as `report`, and if it is gone as soon as it is solved."""
        return self._read(index, lambda report: self._store.get(result_name(str(report.result)), report.mask_digest))

    def weights(self, index: int) -> bytes:
        """Read the updated weights of a shard; raises as `mask` does."""
        return self._read(
            index, lambda report: self._store.get(weights_name(str(report.result)), report.weights_digest)
        )

    def _read(self, index: int, read: Callable[[ShardReport], bytes]) -> bytes:
        try:
            return read(self.report(index))
        except (FileNotFoundError, DamagedBlobError):
            self._reports[index] = self._solved(index)
            return read(self._reports[index])
