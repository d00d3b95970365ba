"""Job records that cannot be read: recognizes them, and sets them aside."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import redis

from masksmith_state import unreadable
from masksmith_state.errors import UnreadableRecordError

from .redis_keys import ENDED_CHANNEL, FINISHED, IDS, JOBS, LIVE, events_key, job_key, parts_key, reports_key
from .shared_keys import check_shared_keys

_WRONG_CONTENT = re.compile(
    r"(Command # .* caused error: (\(['\"])?)?(WRONGTYPE |user_script:|(hash )?value is not )", re.DOTALL
)
"""Beginnings of the error replies to a command or script that reads a value of a wrong type or form.

In a pipeline, redis-py puts the number and the text of the command before the reply; in one of `redis.asyncio`, the
reply is also written as a tuple.
"""
_OTHER_SUFFIXES = (":pending", ":queued", ":queued:long", ":taken", ":attempts", ":results")
"""Suffixes of the keys of a job that are deleted besides its hashes and its events; its leases expire."""


def is_wrong_content(error: redis.ResponseError) -> bool:
    """Whether Redis refused a command because of the value of a key, and not because of the server's condition."""
    return _WRONG_CONTENT.match(str(error)) is not None


@contextmanager
def as_unreadable_record_errors(job: str) -> Iterator[None]:
    """Convert errors of parsing a job's record, and of commands and scripts that read wrong values, to one error.

    Raises:
        UnreadableRecordError: If such an error is raised in the block.
    """
    try:
        yield
    except redis.ResponseError as error:
        if not is_wrong_content(error):
            raise
        raise UnreadableRecordError(job, str(error)) from None
    except (ValueError, LookupError, ArithmeticError) as error:
        reason = str(error).partition("\n")[0]
        raise UnreadableRecordError(job, f"{type(error).__name__}: {reason}") from None


def set_aside_job(client: redis.Redis, job: str, reason: str) -> None:
    """Copy a job's hashes to keys below `masksmith:aside`, delete the job, and remove it from all sets.

    Its id is published as that of an ended job, and the list of unreadable records gets an entry with the reason.

    Raises:
        DamagedBrokerError: If a key that many jobs share is damaged, so that the job's own record may be intact; then
            nothing is changed.
    """
    check_shared_keys(client)
    _copy_hashes(client, job)
    _remove_from_owner(client, job)
    _remove_from_indexes(client, job)
    _remove_references(client, job)
    other_keys = [job_key(job) + suffix for suffix in _OTHER_SUFFIXES]
    client.delete(job_key(job), parts_key(job), reports_key(job), events_key(job), *other_keys)
    client.publish(ENDED_CHANNEL, job)
    unreadable.set_aside(client, "job", job, reason, f"copies: masksmith:aside:{job_key(job)}*")


def _copy_hashes(client: redis.Redis, job: str) -> None:
    with client.pipeline(transaction=True) as pipe:
        for key in (job_key(job), parts_key(job), reports_key(job)):
            copy = f"masksmith:aside:{key}"
            pipe.delete(copy)
            pipe.copy(key, copy)
            pipe.expire(copy, unreadable.COPIES_KEPT_S)
        pipe.execute()


def _remove_from_owner(client: redis.Redis, job: str) -> None:
    """Remove a job from its owner's sets and byte counts; the owner is searched for, since the record may lack it."""
    counted_bytes = {name: _bytes_of(client, job, f"{name}_bytes") for name in ("result", "record")}
    for jobs in client.scan_iter(match="masksmith:owner:*:jobs", count=1000):
        owner = jobs.removesuffix(":jobs")
        _remove(client, f"{owner}:live", job)
        _remove(client, f"{owner}:ids", job)
        if _remove(client, jobs, job):
            client.decrby(f"{owner}:bytes", counted_bytes["result"])
            client.decrby(f"{owner}:record_bytes", counted_bytes["record"])


def _remove_from_indexes(client: redis.Redis, job: str) -> None:
    for index in (JOBS, IDS, LIVE, FINISHED):
        _remove(client, index, job)
    for key in client.scan_iter(match="masksmith:fair:*", count=1000):
        _remove(client, key, job)


def _remove_references(client: redis.Redis, job: str) -> None:
    """Remove a job's references to uploads and results."""
    for jobs in client.scan_iter(match="masksmith:upload:*:jobs", count=1000):
        _remove(client, jobs, job)
    for result in client.scan_iter(match="masksmith:result:*", count=1000):
        removed = [_remove(client, result, member) for member in (job, f"{job}:reader")]
        if any(removed) and not client.exists(result):
            client.zadd("masksmith:unreferenced_results", {result.removeprefix("masksmith:result:"): client.time()[0]})


def _bytes_of(client: redis.Redis, job: str, field: str) -> int:
    """Bytes that are counted for a job; 0 if its record no longer contains a valid number of them."""
    with suppress(redis.ResponseError, ValueError):
        return max(0, int(client.hget(job_key(job), field) or 0))
    return 0


def _remove(client: redis.Redis, key: str, member: str) -> bool:
    """Remove a member from a set or a sorted set; returns whether it was a member (False for keys of other types)."""
    for remove in (client.srem, client.zrem):
        with suppress(redis.ResponseError):
            return bool(remove(key, member))
    return False
