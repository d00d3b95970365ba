"""The table of bounds on what clients may use, and the table of the memory that work costs.

Settings, enforcement and tests read both from here; a test compares the tables in the documentation with them. Limits
that other packages enforce are imported from those packages. `totals` adds up the memory and open files that the bounds
allow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from masksmith_state.blobs.piece_lists import CACHED_LISTS
from masksmith_state.blobs.piece_reader import BATCH_PIECES
from masksmith_state.broker import MAX_USED_SHARE
from masksmith_state.keys import MAX_SESSIONS
from masksmith_wire.errors import Code
from masksmith_wire.headers import DEFAULT_MAX_HEADER_BYTES, MAX_DIMENSIONS, MAX_METADATA, MAX_NAME_LENGTH
from masksmith_wire.payload_limits import MAX_MEMBERS

KIB, MIB, GIB = 2**10, 2**20, 2**30
Per = Literal["request", "connection", "key", "process", "installation"]


@dataclass(frozen=True)
class Bound:
    """A limit of what clients may use.

    Attributes:
        name: Its name; if it is a setting, the name of the setting.
        limit: Its value; if it is a setting, the default.
        meaning: What is limited, and in which unit.
        per: Who may use as much as the limit: each request, each connection, each key and so on.
        beyond: Error codes of requests that exceed it, or what happens instead.
        is_setting: Whether an operator may change it.
    """

    name: str
    limit: float
    meaning: str
    per: Per
    beyond: tuple[Code, ...] | str
    is_setting: bool = True


def _fixed(name: str, limit: float, meaning: str, per: Per, beyond: tuple[Code, ...] | str) -> Bound:
    return Bound(name, limit, meaning, per, beyond, is_setting=False)


_CLOSED = "the connection is closed"
_KEY_SHARE = "one key may use half of it"

BOUNDS = (
    Bound("max_request_head_bytes", 64 * KIB, "bytes of the request line and headers; also of the trailers and "
          "chunk framing", "request", (Code.REQUEST_HEAD_TOO_LARGE,)),
    _fixed("fields", 128, "headers; also trailers", "request", (Code.REQUEST_HEAD_TOO_LARGE,)),
    Bound("request_head_s", 20, "seconds until line and headers have arrived", "request",
          (Code.REQUEST_HEAD_STALLED,)),
    Bound("upload_stall_s", 60, "seconds until a document has arrived, or another 64 KiB of an upload", "request",
          (Code.BODY_STALLED,)),
    Bound("read_stall_s", 60, "seconds until the client has read another 64 KiB of a response, or all that is left",
          "connection", _CLOSED),
    _fixed("late_bytes", MIB, "bytes of a body that are read after the response, for 2 seconds", "request", _CLOSED),
    _fixed("pipelined", 64, "requests that wait for the response to an earlier one", "connection", _CLOSED),
    _fixed("pipelined_fields", 1024, "headers of the requests that wait", "connection", _CLOSED),
    Bound("max_connections", 512, "connections; on further ones only `/healthz` is served; to make room, the oldest "
          "connections that are answering no request are closed", "process", (Code.OVERLOADED,)),
    Bound("max_body_bytes", 64 * GIB, "bytes of an upload", "request", (Code.BODY_TOO_LARGE,)),
    Bound("max_document_bytes", 8 * MIB, "bytes of a JSON document", "request", (Code.BODY_TOO_LARGE,)),
    Bound("max_document_depth", 32, "nested lists and objects of a JSON document", "request",
          (Code.DOCUMENT_TOO_DEEP,)),
    _fixed("members", MAX_MEMBERS, "members of an object of a JSON document", "request", (Code.INVALID_DOCUMENT,)),
    _fixed("login_bytes", 4 * KIB, "bytes of a login's document or form, which needs no key", "request",
           (Code.BODY_TOO_LARGE,)),
    Bound("max_header_bytes", DEFAULT_MAX_HEADER_BYTES, "bytes of the header of a safetensors file, and of the "
          "headers of all uploads that a document names", "request", (Code.HEADER_TOO_LARGE,)),
    Bound("max_tensors", 20_000, "tensors of a file, of a model in a root, or of a job", "request",
           (Code.TOO_MANY_TENSORS,)),
    _fixed("metadata", MAX_METADATA, "members of `__metadata__` in a header of `max_tensors` tensors", "request",
           (Code.HEADER_TOO_LARGE,)),
    _fixed("name_length", MAX_NAME_LENGTH, "characters of a tensor's name", "request", (Code.INVALID_SAFETENSORS,)),
    _fixed("dimensions", MAX_DIMENSIONS, "dimensions of a tensor", "request", (Code.INVALID_SAFETENSORS,)),
    Bound("max_elements", 2**34, "entries of a tensor", "request", (Code.TOO_MANY_ELEMENTS,)),
    _fixed("glob_steps", 2**28, "characters of all globs and selectors, times those of all tensors' names", "request",
           (Code.TOO_MANY_GLOBS,)),
    Bound("max_shards", 100_000, "shards of a job", "request", (Code.TOO_MANY_SHARDS,)),
    Bound("request_memory_bytes", 768 * MIB, "bytes of memory of the requests that are being answered, as the "
          f"table below counts them; {_KEY_SHARE}", "process", (Code.OVERLOADED,)),
    _fixed("creations", 4, f"jobs that are being created; {_KEY_SHARE}", "process", (Code.OVERLOADED,)),
    _fixed("lists", 4, "lists of jobs, comparisons, and lists of the files of a model that are being made; "
           f"{_KEY_SHARE}", "process", (Code.OVERLOADED,)),
    Bound("max_streams", 256, f"event streams, and requests that wait for a job; {_KEY_SHARE}", "process",
          (Code.OVERLOADED,)),
    _fixed("broker_connections", 64, "connections to the broker, beside those of event streams; a request waits for "
           "one", "process", (Code.BROKER_UNAVAILABLE,)),
    _fixed("threads", 40, "threads for requests; a request waits for one", "process", "it waits"),
    _fixed("piece_lists", CACHED_LISTS, "lists, kept in memory, of the digests of a blob's pieces", "process",
           "the oldest is removed"),
    _fixed("pieces", BATCH_PIECES, "pieces of 1 MiB of a blob that are in memory while it is checked", "request",
           "the next ones are read later"),
    Bound("max_wait_s", 60, "seconds that a request with `Prefer: wait` waits", "request", "it is answered"),
    Bound("key_requests_s", 100, "requests a second, with bursts of ten times as many", "key", (Code.RATE_LIMITED,)),
    Bound("key_live_jobs", 200, "jobs that are queued or running", "key", (Code.TOO_MANY_JOBS,)),
    Bound("key_stored_bytes", 256 * GIB, "bytes of uploads, including those being received, and of results", "key",
          (Code.TOO_MANY_BYTES,)),
    Bound("key_broker_bytes", 256 * MIB, "bytes of uploads' and jobs' records and messages in the broker", "key",
          (Code.TOO_MANY_BYTES,)),
    _fixed("sessions", MAX_SESSIONS, "browsers that are logged in", "key", "the oldest session ends"),
    Bound("max_live_jobs", 1000, "jobs that are queued or running", "installation", (Code.TOO_MANY_JOBS,)),
    _fixed("broker_share", MAX_USED_SHARE, "share of the broker's memory that new jobs and uploads may fill; the rest "
           "is for deletions and completions", "installation", (Code.BROKER_FULL,)),
    Bound("min_free_bytes", GIB, "bytes that uploads leave free on the store's disk", "installation",
          (Code.DISK_FULL,)),
)  # fmt: skip
"""The bounds, in the order of the documentation."""

_LIMIT_BY_NAME = {bound.name: bound.limit for bound in BOUNDS}


def limit(name: str) -> int:
    """Return the value of a bound whose value is a whole number; if it is a setting, the default."""
    return int(_LIMIT_BY_NAME[name])


@dataclass(frozen=True)
class Cost:
    """Estimated peak memory of one unit of work.

    Attributes:
        name: Its name.
        bytes: Bytes for one unit.
        meaning: What one unit is.
    """

    name: str
    bytes: int
    meaning: str


COSTS = (
    Cost("process", 160 * MIB, "a process without requests"),
    Cost("connection", MIB, "a connection: heads of waiting requests, and what was received and not yet read or sent"),
    Cost("piece_list", 2 * MIB, "a list of the digests of the largest upload's pieces"),
    Cost("thread", 2 * MIB, "a thread"),
    Cost("document", 26, "a byte of a JSON document"),
    Cost("upload", 28 * MIB, "an upload: blocks of 8 MiB that are being written; small ones count less"),
    Cost("header", 22, "a byte of the header of a safetensors file"),
    Cost("download", 24 * MIB, "a download of results, while they are checked and sent"),
    Cost("picture", 96 * MIB, "a window or profile of a layer, or a comparison of two jobs"),
    Cost("part", 3 * KIB, "a shard or case of a job that is shown"),
)
"""The costs that are counted; a test measures those of JSON documents and safetensors headers."""

_COST_BY_NAME = {cost.name: cost.bytes for cost in COSTS}


def cost(name: str) -> int:
    """Return the estimated memory of a unit of work, in bytes."""
    return _COST_BY_NAME[name]
