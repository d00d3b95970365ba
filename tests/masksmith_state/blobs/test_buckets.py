"""Blobs in a bucket, whose objects are renamed by a copy."""

import asyncio

import numpy as np
import obstore
import pytest
from blake3 import blake3
from obstore.exceptions import GenericError
from support.buckets import BUCKET, Bucket

from masksmith_state.blobs import objects
from masksmith_state.blobs.names import upload_name
from masksmith_state.blobs.store import BlobStore

MIB = 2**20
DATA = np.random.default_rng(0).bytes(13 * MIB + 5)
NAME = upload_name(blake3(DATA).hexdigest())


@pytest.fixture(scope="module")
def bucket():
    with Bucket() as bucket:
        yield bucket


@pytest.fixture
def store(bucket, monkeypatch, tmp_path):
    """A store in a bucket that copies at most 5 MiB in one request."""
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    store, rename = BlobStore(f"s3://{BUCKET}/{tmp_path.name}"), obstore.rename

    def limited(client, old, new):
        if obstore.head(client, old)["size"] > 5 * MIB:
            raise GenericError("InvalidRequest: the specified copy source is larger than the maximum allowable size")
        rename(client, old, new)

    monkeypatch.setattr(obstore, "rename", limited)
    monkeypatch.setattr(objects, "MAX_COPY_BYTES", 5 * MIB)
    return store


async def chunks(data):
    for start in range(0, len(data), 700_001):
        yield data[start : start + 700_001]


@pytest.mark.parametrize("size", [0, 5 * MIB, 5 * MIB + 1, len(DATA)])
def test_an_object_that_is_too_large_to_be_copied_by_the_bucket_is_renamed(store, size):
    data = DATA[:size]
    name = upload_name(blake3(data).hexdigest())
    asyncio.run(store.put_stream("incoming/a", chunks(data)))
    store.rename("incoming/a", name)
    assert BlobStore(store.url).get(name) == data
    assert [listed for listed, _ in store.list("incoming")] == []


def test_a_large_object_that_is_damaged_is_set_aside(store):
    store.put(NAME, DATA)
    store.objects.put(NAME, DATA[:-1] + b"?")
    assert not store.is_intact(NAME)
    assert (store.size(NAME), len(list(store.list_damaged()))) == (None, 1)


def test_a_large_object_that_cannot_be_read_leaves_no_part_under_the_new_name(store, monkeypatch):
    store.put("incoming/a", DATA)
    read = store.objects.get_range

    def failing(name, start, stop):
        if start > 0:
            raise GenericError("the bucket is out of reach")
        return read(name, start, stop)

    monkeypatch.setattr(store.objects, "get_range", failing)
    with pytest.raises(GenericError, match="out of reach"):
        store.objects.rename("incoming/a", NAME)
    assert (store.size(NAME), store.size("incoming/a")) == (None, len(DATA))
