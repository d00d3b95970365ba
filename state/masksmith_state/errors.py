"""Domain errors of the shared state; the service gives an HTTP status to each one that a request can cause."""

from __future__ import annotations

from obstore.exceptions import GenericError


class DamagedBlobError(Exception):
    """The bytes of a blob are damaged, were replaced while they were read, or have another size than the reader needs.

    Attributes:
        blob: Name of the blob.
        is_set_aside: Whether the blob was moved to the folder `damaged`. False if its bytes were replaced or have
            another size than the reader needs, or if the store is read-only.
    """

    def __init__(self, blob: str, *, is_set_aside: bool) -> None:
        super().__init__(f"blob {blob} was damaged in the store{', and was set aside' if is_set_aside else ''}")
        self.blob, self.is_set_aside = blob, is_set_aside


class UncheckedBlobError(DamagedBlobError):
    """A blob cannot be checked: the list of its digests is missing or damaged, and no digest is known.

    The blob may be intact, so it is never set aside.
    """

    def __init__(self, blob: str) -> None:
        super().__init__(blob, is_set_aside=False)
        self.args = (f"blob {blob} cannot be checked: the list of its digests is missing or damaged",)


class ReplacedBlobError(DamagedBlobError):
    """A blob is intact, but it is not the one that a record names: a result with the same key replaced it.

    Results have the same key whichever machine computes them, and a few of them (`admm`, updated weights) differ
    between processors. The blob may be that of another job, so it is never set aside.
    """

    def __init__(self, blob: str) -> None:
        super().__init__(blob, is_set_aside=False)
        self.args = (f"blob {blob} was replaced by a result with another digest",)


class InstallationError(Exception):
    """Broker, store, roots or a backup cannot be used, or do not belong together; the message says why."""


class FullError(Exception):
    """A job cannot be created because a limit is reached.

    Attributes:
        exceeded_limit: The limit that is reached: `full`, live jobs of all owners; `quota`, live jobs of the owner;
            `bytes`, stored bytes of the owner; `records`, bytes of the owner's records in the broker.
        limit: The value of that limit.
    """

    def __init__(self, exceeded_limit: str, limit: int) -> None:
        super().__init__(f"{exceeded_limit}: {limit}")
        self.exceeded_limit, self.limit = exceeded_limit, limit


class BrokerFullError(Exception):
    """The broker has no room for another record.

    Attributes:
        used_bytes: Memory that it uses.
        max_bytes: Memory that it may use.
    """

    def __init__(self, used_bytes: int, max_bytes: int) -> None:
        super().__init__(f"the broker uses {used_bytes} of {max_bytes} bytes (maxmemory)")
        self.used_bytes, self.max_bytes = used_bytes, max_bytes


class BrokerUnsafeError(Exception):
    """The broker may lose or refuse work: it may evict keys, cannot write to its disk, or is full."""


class MissingUploadError(Exception):
    """A job refers to an upload that does not exist, or that the job's owner has not sent.

    Attributes:
        digest: The upload's digest.
    """

    def __init__(self, digest: str) -> None:
        super().__init__(digest)
        self.digest = digest


class MissingResultError(Exception):
    """A job reads a result of an earlier job that was deleted."""


class NoMasksError(Exception):
    """A masks job is required, and the job is of another kind."""

    def __init__(self, job: str, kind: str) -> None:
        super().__init__(f"job {job} is a {kind} and has no masks")
        self.job, self.kind = job, kind


class UnreadableRecordError(Exception):
    """The record of a job does not have the form in which this version writes records."""

    def __init__(self, job: str, reason: str) -> None:
        super().__init__(f"the record of job {job} cannot be read: {reason}")
        self.job, self.reason = job, reason


class TooManyShardsError(Exception):
    """A job would have more shards than the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the job would have more than {limit} shards")
        self.limit = limit


class InvalidLocationError(Exception):
    """A location is malformed, leads outside its root, or is of another kind than is needed.

    Attributes:
        location: The location.
        reason: What is wrong with it.
    """

    def __init__(self, location: str, reason: str) -> None:
        super().__init__(f"{location!r}: {reason}")
        self.location, self.reason = location, reason


class NoRootError(Exception):
    """No root of this process contains a location."""

    def __init__(self, location: str) -> None:
        super().__init__(f"{location!r} is in no root (MASKSMITH_ROOTS)")
        self.location = location


class ChangedSourceError(Exception):
    """A file in a root is not as it was when the job that refers to it was submitted.

    Attributes:
        location: The file.
        reason: What has changed.
    """

    def __init__(self, location: str, reason: str) -> None:
        super().__init__(f"{location!r} has changed since the job was submitted: {reason}; submit the job again")
        self.location, self.reason = location, reason


class RootUnavailableError(GenericError):
    """A root does not answer, or refuses; the same call may succeed later.

    Attributes:
        location: What was to be read or written.
        reason: Why it cannot be accessed.
    """

    def __init__(self, location: str, reason: str) -> None:
        super().__init__(f"{location!r} cannot be accessed: {reason}")
        self.location, self.reason = location, reason
