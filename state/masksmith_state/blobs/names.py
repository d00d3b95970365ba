"""Names of blobs in the store: a folder for each kind of blob."""

from __future__ import annotations

import re

UPLOADS, RESULTS, WEIGHTS, STATISTICS, INCOMING = "tensors", "masks", "weights", "statistics", "incoming"
"""Folders: uploaded files; packed masks with their reports; updated weights; cached statistics; uploads that are being
received and whose digest is not known in advance."""
BLOB_FOLDERS = (UPLOADS, RESULTS, WEIGHTS, STATISTICS)
"""Folders of the blobs that are complete."""
PIECE_LISTS = "pieces"
"""Folder of the piece lists: for each blob, under its name, the digests of its pieces."""
DAMAGED = "damaged"
"""Folder of the blobs that were set aside, each under its name with the time in milliseconds."""
_BLOB_NAME = re.compile(r"(tensors|masks|weights|statistics)/([0-9a-f]{2})/\2[0-9a-f]{62}(\.json)?")
_INCOMING_NAME = re.compile(rf"{INCOMING}/[0-9a-f]{{32}}")


def incoming_name(identifier: str) -> str:
    """Name of an upload while it is received, if its digest is not known in advance."""
    return f"{INCOMING}/{identifier}"


def is_incoming_name(name: str) -> bool:
    """Whether a name has the form of the name of an upload that is being received."""
    return _INCOMING_NAME.fullmatch(name) is not None


def upload_name(digest: str) -> str:
    """Name of an uploaded safetensors file."""
    return _keyed(UPLOADS, digest)


def result_name(key: str) -> str:
    """Name of a shard's packed mask."""
    return _keyed(RESULTS, key)


def result_report_name(key: str) -> str:
    """Name of the report of a shard's result; written last, so that the mask exists if the report does."""
    return f"{result_name(key)}.json"


def weights_name(key: str) -> str:
    """Name of a shard's updated weights."""
    return _keyed(WEIGHTS, key)


def statistic_name(key: str) -> str:
    """Name of a cached value: a statistic of a tensor, a measurement of a shard, or the patterns of a job's tensors."""
    return _keyed(STATISTICS, key)


def _keyed(folder: str, key: str) -> str:
    return f"{folder}/{key[:2]}/{key}"


def piece_list_name(name: str) -> str:
    """Name of the list of the digests of a blob's pieces."""
    return f"{PIECE_LISTS}/{name}"


def is_blob_name(name: str) -> bool:
    """Whether a name has the form of the names of uploads, results (with reports), updated weights and statistics."""
    return _BLOB_NAME.fullmatch(name) is not None


def is_sealed_name(name: str) -> bool:
    """Whether the data of a blob of this name end with a digest; such a blob has no list of digests of its pieces."""
    return name.startswith(f"{STATISTICS}/") or name.endswith(".json")


def digest_of_upload(name: str) -> str | None:
    """Digest in the name of an upload; None if the name is not that of an upload."""
    return name.rpartition("/")[2] if name.startswith(f"{UPLOADS}/") and is_blob_name(name) else None
