"""Finds the job of an earlier request with the same `Idempotency-Key`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

from masksmith_service.errors import RequestError
from masksmith_state.jobs.records import JobRecords
from masksmith_wire.benchmarks import BenchmarkRequest
from masksmith_wire.digests import digest_document
from masksmith_wire.documents import MasksRequest
from masksmith_wire.errors import Code

from .options import FileOptions

Request = MasksRequest | BenchmarkRequest | FileOptions


@dataclass(frozen=True)
class RepeatableRequest:
    """A request with an `Idempotency-Key`, which the client may repeat to get the same job.

    Attributes:
        idempotency_key: The key.
        request: The request's document or options.
        file: Digest of the request's file; empty if it has none.
    """

    idempotency_key: str
    request: Request
    file: str = ""

    @classmethod
    def of(cls, idempotency_key: str | None, request: Request, file: str = "") -> Self | None:
        """Return None for a request without an `Idempotency-Key`."""
        return None if idempotency_key is None else cls(idempotency_key, request, file)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of what two requests with one key must have in common."""
        members = self.request.model_dump(mode="json", exclude_defaults=True, exclude={"require_worker"})
        return digest_document({"kind": type(self.request).__name__, "request": members, "file": self.file})

    def find_job(self, records: JobRecords, owner: str) -> str | None:
        """Return the id of the job of an earlier request with this key; None if there is none.

        Raises:
            RequestError: If the key was used with another request.
        """
        job_and_fingerprint = records.find_repeated(owner, self.idempotency_key)
        if job_and_fingerprint is None:
            return None
        job, fingerprint = job_and_fingerprint
        if fingerprint != self.fingerprint:
            raise self.conflict_error()
        return job

    def conflict_error(self) -> RequestError:
        """Return the error for a key that was used with another request."""
        detail = f"Idempotency-Key {self.idempotency_key!r} was used with another request; use a new one"
        return RequestError(Code.IDEMPOTENCY_CONFLICT, detail)
