"""Holdings: who holds what in the blob store, so that nothing needed is ever deleted and nothing else is kept for ever.

An upload D is held by the keys that sent it and by the live jobs that read it; a result R by the jobs that list it:

- `masksmith:upload:D` (hash: `size`), `:owners` and `:jobs` (sets); `masksmith:uploads` orders `KEY:D` by last use;
- `masksmith:result:R` and `masksmith:job:J:results` (sets, either way); `masksmith:unheld` has those without a job;
- `masksmith:owner:K:bytes` counts what a key keeps: its uploads, and the results of its jobs;
- `masksmith:doomed` (hash: blob -> token) names what is being deleted. Nobody takes hold of a doomed blob.

A blob is deleted in three steps: doom it if nobody holds it (one atomic script), delete it, spare its name. Who reads a
result takes hold of it before looking whether it is there. Who has written an upload takes hold of it and then looks
whether it is still there, for it may have been deleted in between: then it has to be sent again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import redis

from .store import BlobStore, result_name, result_report_name, upload_name, weights_name

DOOMED_PATIENCE_S = 60.0
POLL_S = 0.05

_PRELUDE = """
local function stamp() local t = redis.call('TIME'); return string.format('%d.%06d', t[1], t[2]) end
local function unlink(owner, digest)
  local upload = 'masksmith:upload:' .. digest
  if redis.call('SREM', upload .. ':owners', owner) == 1 then
    redis.call('DECRBY', 'masksmith:owner:' .. owner .. ':bytes', redis.call('HGET', upload, 'size') or 0)
  end
  redis.call('ZREM', 'masksmith:uploads', owner .. ':' .. digest)
end
"""

# ARGV: owner, digest, size, most bytes of the owner or -1.
LINK = (
    _PRELUDE
    + """
local owner, digest, upload = ARGV[1], ARGV[2], 'masksmith:upload:' .. ARGV[2]
if redis.call('HEXISTS', 'masksmith:doomed', 'upload:' .. digest) == 1 then return 'doomed' end
local bytes, most = 'masksmith:owner:' .. owner .. ':bytes', tonumber(ARGV[4])
local known = redis.call('SISMEMBER', upload .. ':owners', owner) == 1
if not known and most >= 0 and tonumber(redis.call('GET', bytes) or 0) + tonumber(ARGV[3]) > most then return 'full' end
if not known then
  redis.call('HSET', upload, 'size', ARGV[3])
  redis.call('SADD', upload .. ':owners', owner)
  redis.call('INCRBY', bytes, ARGV[3])
end
redis.call('ZADD', 'masksmith:uploads', stamp(), owner .. ':' .. digest)
return known and 'known' or 'new'
"""
)

# ARGV: owner, digest, 1 if anybody's will do. Answers the size, or -1.
TOUCH = (
    _PRELUDE
    + """
local upload = 'masksmith:upload:' .. ARGV[2]
local mine = redis.call('SISMEMBER', upload .. ':owners', ARGV[1]) == 1
if not mine and ARGV[3] ~= '1' then return -1 end
if mine then redis.call('ZADD', 'masksmith:uploads', stamp(), ARGV[1] .. ':' .. ARGV[2]) end
return tonumber(redis.call('HGET', upload, 'size') or -1)
"""
)

# ARGV: digest. Takes an upload from everybody.
UNLINK_ALL = (
    _PRELUDE
    + """
local owners = redis.call('SMEMBERS', 'masksmith:upload:' .. ARGV[1] .. ':owners')
for _, owner in ipairs(owners) do unlink(owner, ARGV[1]) end
"""
)

# ARGV: owner, digest, time. Takes an upload from a key that has not used it since; not while a live job reads it.
EXPIRE = (
    _PRELUDE
    + """
local member = ARGV[1] .. ':' .. ARGV[2]
local used = redis.call('ZSCORE', 'masksmith:uploads', member)
if not used or tonumber(used) >= tonumber(ARGV[3]) then return 0 end
if redis.call('EXISTS', 'masksmith:upload:' .. ARGV[2] .. ':jobs') == 1 then
  redis.call('ZADD', 'masksmith:uploads', stamp(), member)
  return 0
end
unlink(ARGV[1], ARGV[2])
return 1
"""
)

# ARGV: digest, token. Answers 1 if the upload is doomed now.
DOOM_UPLOAD = """
local upload = 'masksmith:upload:' .. ARGV[1]
if redis.call('EXISTS', upload .. ':owners') == 1 or redis.call('EXISTS', upload .. ':jobs') == 1 then return 0 end
redis.call('DEL', upload)
redis.call('HSET', 'masksmith:doomed', 'upload:' .. ARGV[1], ARGV[2])
return 1
"""

# ARGV: key of a result, token. Answers 1 if the result is doomed now.
DOOM_RESULT = """
redis.call('ZREM', 'masksmith:unheld', ARGV[1])
if redis.call('EXISTS', 'masksmith:result:' .. ARGV[1]) == 1 then return 0 end
redis.call('HSET', 'masksmith:doomed', 'result:' .. ARGV[1], ARGV[2])
return 1
"""

# ARGV: job, key of a result. Answers 1 if the job holds it now, 0 if it is being deleted, -1 if the job is not live.
HOLD = """
local state = redis.call('HGET', 'masksmith:job:' .. ARGV[1], 'state')
if state ~= 'queued' and state ~= 'running' then return -1 end
if redis.call('HEXISTS', 'masksmith:doomed', 'result:' .. ARGV[2]) == 1 then return 0 end
redis.call('SADD', 'masksmith:result:' .. ARGV[2], ARGV[1])
redis.call('SADD', 'masksmith:job:' .. ARGV[1] .. ':results', ARGV[2])
redis.call('ZREM', 'masksmith:unheld', ARGV[2])
return 1
"""


class Linked(StrEnum):
    """What became of an upload that a key wants to hold."""

    NEW = "new"
    KNOWN = "known"
    FULL = "full"
    LOST = "lost"


class Holdings:
    """Takes hold of blobs, lets go of them, and deletes what nobody holds.

    Args:
        client: The Redis server of the job records, decoding its answers.
        store: The blobs; no other installation may use it.
    """

    def __init__(self, client: redis.Redis, store: BlobStore) -> None:
        self._redis, self._store = client, store
        scripts = {"link": LINK, "touch": TOUCH, "unlink_all": UNLINK_ALL, "expire": EXPIRE, "hold": HOLD,
                   "upload": DOOM_UPLOAD, "result": DOOM_RESULT}  # fmt: skip
        self._scripts = {name: client.register_script(text) for name, text in scripts.items()}

    def bytes_of(self, owner: str) -> int:
        """Bytes that a key keeps."""
        return int(self._redis.get(f"masksmith:owner:{owner}:bytes") or 0)

    def link(self, owner: str, digest: str, size: int, most: int | None) -> Linked:
        """Let a key hold an upload whose bytes it has sent, and which has been written.

        Args:
            owner: The key.
            digest: The upload.
            size: Its size.
            most: Bytes that the key may keep.

        Returns:
            `NEW` or `KNOWN` to the key, `FULL` if that would be too much, `LOST` if it was being deleted meanwhile.
        """
        until = time.monotonic() + DOOMED_PATIENCE_S
        while (word := self._run("link", owner, digest, size, -1 if most is None else most)) == "doomed":
            if time.monotonic() > until:
                return Linked.LOST
            time.sleep(POLL_S)
        if word == Linked.FULL:
            self.free_upload(digest)
        elif self._store.size(upload_name(digest)) is None:
            self._run("unlink_all", digest)
            return Linked.LOST
        return Linked(word)

    def touch(self, owner: str, digest: str, *, anybodys: bool) -> int | None:
        """Give the size of an upload that a key holds, or None; it expires later for it.

        Args:
            owner: The key.
            digest: The upload.
            anybodys: Whether one that another key holds will do.
        """
        size = int(self._run("touch", owner, digest, int(anybodys)))
        return None if size < 0 or self._store.size(upload_name(digest)) is None else size

    def forget_upload(self, digest: str) -> None:
        """Delete an upload that is damaged, whoever holds it, so that it can be sent again."""
        self._run("unlink_all", digest)
        self._store.delete(upload_name(digest))

    def hold_result(self, job: str, key: str) -> bool:
        """Let a live job hold a result, which may or may not be there; False if the job is over."""
        until = time.monotonic() + DOOMED_PATIENCE_S
        while (answer := int(self._run("hold", job, key))) == 0:
            if time.monotonic() > until:
                self._spare("result", key)
            time.sleep(POLL_S)
        return answer > 0

    def expire_upload(self, owner: str, digest: str, before: float) -> bool:
        """Let a key that has not used an upload since then lose it, unless a live job reads it."""
        expired = bool(self._run("expire", owner, digest, f"{before:.6f}"))
        if expired:
            self.free_upload(digest)
        return expired

    def free_upload(self, digest: str) -> bool:
        """Delete an upload if nobody holds it."""
        return self._free("upload", digest, [upload_name(digest)])

    def free_result(self, key: str) -> bool:
        """Delete a result if no job holds it."""
        # The report goes first: its presence proves the mask's.
        return self._free("result", key, [result_report_name(key), result_name(key), weights_name(key)])

    def free_doomed(self) -> None:
        """Finish what deleters that were killed had begun."""
        for blob, token in dict(self._redis.hgetall("masksmith:doomed")).items():
            kind, _, name = str(blob).partition(":")
            if float(str(token).partition(":")[0]) < time.time() - DOOMED_PATIENCE_S:
                (self.free_upload if kind == "upload" else self.free_result)(name)

    def _free(self, kind: str, name: str, blobs: Iterable[str]) -> bool:
        token = f"{time.time():.3f}:{secrets.token_hex(8)}"
        if not self._run(kind, name, token):
            return False
        for blob in blobs:
            # Whoever was held up here for long may have been taken for dead, and the blob be somebody's again.
            if self._redis.hget("masksmith:doomed", f"{kind}:{name}") == token:
                self._store.delete(blob)
        self._spare(kind, name)
        return True

    def _spare(self, kind: str, name: str) -> None:
        self._redis.hdel("masksmith:doomed", f"{kind}:{name}")

    def _run(self, script: str, *arguments: str | int) -> Any:
        return self._scripts[script](args=arguments)
