"""Backs an installation up into a directory, while it serves, and restores such a backup into an empty installation.

One script reads the records of the broker, so that they are consistent. Blobs are copied after that. While a backup
runs (`masksmith:backup` exists) no blob is deleted, so that all blobs that the records refer to exist; the set
`masksmith:deferred` has the blobs that are to be deleted afterwards. Leases, messages, and keys with one of
`EXCLUDED_PREFIXES`, such as heartbeats and sessions, are not part of a backup. In a restored installation, shards that
workers had taken are queued again.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import redis
from blake3 import blake3
from obstore.exceptions import BaseError as StoreError
from redis.exceptions import LockError

from masksmith_state import DATA_FORMAT
from masksmith_state.blobs.names import BLOB_FOLDERS, is_blob_name, is_sealed_name, piece_list_name
from masksmith_state.blobs.references import BACKUP, BACKUP_LOCK_S
from masksmith_state.blobs.store import BlobStore
from masksmith_state.errors import InstallationError
from masksmith_state.expiry import limit_expiry
from masksmith_state.fsck import check_store
from masksmith_state.installation import IDENTITY_KEY, IDENTITY_NAME, Installation
from masksmith_state.scripts import load
from masksmith_wire.json_text import parse_json
from masksmith_wire.text import without_credentials

log = logging.getLogger(__name__)

RECORDS, MANIFEST, STORE = "records.jsonl", "manifest.json", "store"
"""Names in the directory of a backup: two files, and the folder of the blobs."""
RANGE_BYTES = 8 * 2**20
"""Maximum number of bytes of a blob that are copied at once."""
EXCLUDED_PREFIXES = (
    "masksmith:session",
    "masksmith:rate:",
    "masksmith:worker",
    "masksmith:bench-workers",
    "masksmith:served",
    "masksmith:probe",
    "masksmith:sweep",
    "masksmith:device",
    "masksmith:start",
    "masksmith:output:",
    BACKUP,
)
"""Prefixes of keys that are not part of a backup."""


@dataclass(frozen=True)
class Manifest:
    """Describes a complete backup; its file is written last.

    Attributes:
        installation: Identity of the installation.
        data_format: Version of the format of records and blobs.
        records: Number of records.
        records_digest: BLAKE3 digest of the file of the records.
        blobs: Number of blobs.
        bytes: Size of all blobs together.
    """

    installation: str
    data_format: int
    records: int
    records_digest: str
    blobs: int
    bytes: int


def back_up(client: redis.Redis, store: BlobStore, folder: Path) -> Manifest:
    """Write a backup into a directory that is empty, or does not exist.

    Raises:
        InstallationError: If the directory is not empty, broker and store do not belong together, another backup runs,
            a store fails, or the broker was unreachable for so long that blobs may have been deleted.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if any(folder.iterdir()):
        raise InstallationError(f"{folder} is not empty: a backup is written into a directory of its own")
    with _translating_store_errors(), _deferring_deletions(client):
        identity = Installation(client, store).claim()
        records, digest = _save_records(client, folder / RECORDS)
        blobs, size = _copy_store(store, BlobStore(str(folder / STORE), create=True))
    manifest = Manifest(identity, DATA_FORMAT, records, digest, blobs, size)
    _write(folder / MANIFEST, json.dumps(asdict(manifest), indent=2).encode())
    return manifest


def restore(client: redis.Redis, store: BlobStore, folder: Path) -> Manifest:
    """Check a backup, and restore it into an empty broker and an empty store; damaged blobs are logged, and copied.

    Raises:
        InstallationError: If the backup is incomplete or of another data format, its records are damaged, a blob of it
            cannot be read, broker or store are not empty, or a store fails.
    """
    with _translating_store_errors():
        manifest, records = _read_backup(folder)
        if any(client.scan_iter(match="masksmith*", count=1000)):
            raise InstallationError("the broker is not empty: a backup is restored into a new installation only")
        if [name for name in store.objects.top_level() if name != "lost+found"]:
            raise InstallationError(
                f"the store {without_credentials(store.url)} is not empty: a backup is restored into a new one only"
            )
        _copy_store(BlobStore(str(folder / STORE), read_only=True), store)
    with client.pipeline(transaction=True) as pipe:
        for record in records:
            pipe.restore(record["key"], record["ttl_ms"], b64decode(record["value"]))
        pipe.execute()
    return manifest


@contextmanager
def _translating_store_errors() -> Iterator[None]:
    """Turn an error of a store within the block into an InstallationError."""
    try:
        yield
    except StoreError as error:
        raise InstallationError(f"reading or writing a store failed: {error}") from None


@contextmanager
def _deferring_deletions(client: redis.Redis) -> Iterator[None]:
    """Defer deletions of blobs within the block, by a lock that is renewed, and expires if this process dies.

    Raises:
        InstallationError: If another backup runs, or if the lock was lost by the end of the block.
    """
    lock, ended = client.lock(BACKUP, timeout=BACKUP_LOCK_S, thread_local=False), threading.Event()
    limit_expiry(client, [BACKUP], BACKUP_LOCK_S)
    if not lock.acquire(blocking=False):
        raise InstallationError("another backup of this installation is running")

    def renew() -> None:
        while not ended.wait(BACKUP_LOCK_S / 4):
            # If the broker cannot be reached, the next round tries again. A lock that has expired is not acquired
            # again: the end of the block reports that it was lost.
            with suppress(redis.RedisError):
                lock.reacquire()

    renewer = threading.Thread(target=renew, name="backup", daemon=True)
    renewer.start()
    try:
        yield
        if not lock.owned():
            raise InstallationError("the broker was unreachable for too long: blobs may have been deleted; try again")
    finally:
        ended.set()
        renewer.join()
        with suppress(LockError):
            lock.release()


def _save_records(client: redis.Redis, path: Path) -> tuple[int, str]:
    """Write a consistent copy of the records that belong to a backup; returns their number, and the file's digest."""
    binary = redis.Redis(connection_pool=_binary_pool(client))
    try:
        reply: Any = binary.eval(load(__package__)["dump"], 0)
    finally:
        binary.close()
        binary.connection_pool.disconnect()
    lines = []
    for key, ttl_ms, value in zip(reply[::3], reply[1::3], reply[2::3], strict=True):
        name = key.decode()
        # PTTL returns 0 for a key that expires within a millisecond, and -1 for a key that does not expire, for which
        # RESTORE takes 0.
        if ttl_ms != 0 and not name.startswith(EXCLUDED_PREFIXES) and ":lease:" not in name:
            lines.append(json.dumps({"key": name, "ttl_ms": max(0, ttl_ms), "value": b64encode(value).decode()}))
    data = "".join(line + "\n" for line in sorted(lines)).encode()
    _write(path, data)
    return len(lines), blake3(data).hexdigest()


def _binary_pool(client: redis.Redis) -> redis.ConnectionPool:
    """Connections to the client's server that wait longer, and do not decode replies, because dumps are binary."""
    pool = client.connection_pool
    options = {**pool.connection_kwargs, "decode_responses": False, "socket_timeout": 300}
    return redis.ConnectionPool(connection_class=pool.connection_class, **options)


def _copy_store(source: BlobStore, target: BlobStore) -> tuple[int, int]:
    """Copy all blobs, unchecked, with their digest lists, then the identity; returns number and bytes of blobs."""
    count = size = 0
    for folder in BLOB_FOLDERS:
        for name, _ in source.list(folder):
            if is_blob_name(name) and _copy_blob(source, target, name):
                count, size = count + 1, size + (target.size(name) or 0)
    target.objects.put(IDENTITY_NAME, source.objects.get(IDENTITY_NAME))
    return count, size


def _copy_blob(source: BlobStore, target: BlobStore, name: str) -> bool:
    """Copy a blob, and its digest list if there is one; return False if the blob does not exist any more.

    A blob without its list can still be read if its digest is known, from the name of an upload or the report of a
    result: the store checks the blob, and computes the list again.
    """
    try:
        if not is_sealed_name(name):
            with suppress(FileNotFoundError):
                target.objects.put(piece_list_name(name), source.objects.get(piece_list_name(name)))
        total = source.size(name) or 0
        if total <= RANGE_BYTES:
            target.objects.put(name, source.objects.get(name))
        else:
            starts = range(0, total, RANGE_BYTES)
            stops = (min(total, at + RANGE_BYTES) for at in starts)
            pieces = (source.objects.get_range(name, at, stop) for at, stop in zip(starts, stops, strict=True))
            target.objects.put_pieces(name, pieces)
    except FileNotFoundError:
        target.delete(name)
        log.warning("%s is not copied: it was deleted, or set aside as damaged, a moment ago", name)
        return False
    return True


def _read_backup(folder: Path) -> tuple[Manifest, list[dict[str, Any]]]:
    """Read manifest and records of a backup; check both, and all blobs. Damaged blobs are only logged."""
    try:
        manifest = Manifest(**parse_json((folder / MANIFEST).read_bytes()))
        data = (folder / RECORDS).read_bytes()
    except (OSError, ValueError, TypeError) as error:
        raise InstallationError(f"{folder} is not a complete backup: {error}") from None
    if manifest.data_format != DATA_FORMAT:
        raise InstallationError(f"the backup has data format {manifest.data_format}, this masksmith uses {DATA_FORMAT}")
    if blake3(data).hexdigest() != manifest.records_digest:
        raise InstallationError(f"{folder / RECORDS} is damaged")
    report = check_store(BlobStore(str(folder / STORE), read_only=True))
    if report.unreadable:
        raise InstallationError(f"{report.unreadable[0]} in the backup cannot be read")
    existing = report.checked + len(report.unchecked)
    if existing < manifest.blobs:
        raise InstallationError(f"the backup had {manifest.blobs} blobs, and only {existing} of them exist")
    for name in report.unchecked:
        log.warning("%s in the backup cannot be checked: the list of its digests is lost; it is copied as it is", name)
    for name in report.damaged:
        log.warning("%s is damaged in the backup: it will be computed or must be sent again", name)
    return manifest, _parse_records(folder / RECORDS, data)


def _parse_records(path: Path, data: bytes) -> list[dict[str, Any]]:
    """Parse the file of the records; raises InstallationError if it is malformed, or has no identity."""
    try:
        records = [parse_json(line) for line in data.splitlines()]
        keys = {record["key"] for record in records}
    except (ValueError, TypeError, KeyError):
        raise InstallationError(f"{path} is damaged") from None
    if IDENTITY_KEY not in keys:
        raise InstallationError(f"{path} has no identity")
    return records


def _write(path: Path, data: bytes) -> None:
    """Write a file for its owner alone; it has its final name only when it is complete."""
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
