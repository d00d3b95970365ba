"""What the state refuses; the service decides which HTTP status each has."""

from __future__ import annotations


class FullError(Exception):
    """A job more would be too much.

    Attributes:
        what: `full`: there are as many live jobs as there may be; `quota`: of its owner; `bytes`: the owner may not
            keep the results.
        limit: The limit.
    """

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"{what}: {limit}")
        self.what, self.limit = what, limit


class MissingUploadError(Exception):
    """A job names an upload that is not here, or not its owner's."""

    def __init__(self, digest: str) -> None:
        super().__init__(digest)
        self.digest = digest


class NoMasksError(Exception):
    """A job of another kind is taken for one that finds masks."""

    def __init__(self, job: str, kind: str) -> None:
        super().__init__(f"job {job} is a {kind} and finds no masks")
        self.job, self.kind = job, kind


class TooManyShardsError(Exception):
    """A job would have more shards than it may."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the job would have more than {limit} shards")
        self.limit = limit
