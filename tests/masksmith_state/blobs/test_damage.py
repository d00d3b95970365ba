"""Every kind of damage of a blob is detected by every way to read it, and the blob is set aside."""

import asyncio
import os
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from masksmith_state.blobs.names import piece_list_name, result_name, statistic_name, upload_name
from masksmith_state.blobs.pieces import PieceHasher, PieceList
from masksmith_state.blobs.store import BlobStore
from masksmith_state.errors import DamagedBlobError, ReplacedBlobError, UncheckedBlobError

MIB = 2**20
DATA = np.random.default_rng(0).bytes(2 * MIB + 1000)
OTHER = DATA[::-1]
NAME, OTHER_NAME = result_name("ab" * 32), result_name("cd" * 32)


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def swap(path, other):
    first, second = path.read_bytes(), other.read_bytes()
    path.write_bytes(second)
    other.write_bytes(first)


def replace_by_pipe(path):
    path.unlink()
    os.mkfifo(path)


def exchange_with_lists(root):
    swap(root / NAME, root / OTHER_NAME)
    swap(root / piece_list_name(NAME), root / piece_list_name(OTHER_NAME))


# Each holds for the last byte of the blob, which all reads below touch.
DAMAGE = {
    "a byte flipped": lambda root: flip(root / NAME, -1),
    "cut by a byte": lambda root: (root / NAME).write_bytes(DATA[:-1]),
    "cut to a piece": lambda root: (root / NAME).write_bytes(DATA[:MIB]),
    "empty": lambda root: (root / NAME).write_bytes(b""),
    "zeros": lambda root: (root / NAME).write_bytes(bytes(len(DATA))),
    "another blob": lambda root: swap(root / NAME, root / OTHER_NAME),
}
# Without a digest, the blob cannot be checked, and may be intact.
LOST_LISTS = {
    "another blob with its list": exchange_with_lists,
    "list flipped": lambda root: flip(root / piece_list_name(NAME), -40),
    "list cut": lambda root: (root / piece_list_name(NAME)).write_bytes(b"x"),
    "list empty": lambda root: (root / piece_list_name(NAME)).write_bytes(b""),
    "list a pipe": lambda root: replace_by_pipe(root / piece_list_name(NAME)),
    "list gone": lambda root: (root / piece_list_name(NAME)).unlink(),
}


async def whole(store, name, digest=None):
    return b"".join([piece async for piece in store.stream(name, digest)])


READS = {
    "get": lambda store, digest=None: store.get(NAME, digest),
    "range": lambda store, digest=None: store.get_range(NAME, len(DATA) - 10, len(DATA), digest),
    "ranges": lambda store, digest=None: store.get_ranges(NAME, [0, len(DATA) - 10], 10, digest),
    "stream": lambda store, digest=None: asyncio.run(whole(store, NAME, digest)),
    "verify": lambda store, digest=None: store.verify(NAME, digest),
}


@pytest.fixture
def root(store):
    store.put(NAME, DATA)
    store.put(OTHER_NAME, OTHER)
    return Path(store.url)


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_noticed_and_the_blob_is_set_aside(store, root, damage, read, caplog):
    damage(root)
    # Another process, which remembers nothing.
    fresh = BlobStore(store.url)
    with pytest.raises(DamagedBlobError, match=NAME):
        read(fresh)
    assert NAME in caplog.text
    assert fresh.size(NAME) is None
    assert [name.rpartition(".")[0] for name, _ in fresh.list_damaged()] == [NAME]
    with pytest.raises(FileNotFoundError):
        fresh.get(NAME)
    fresh.put(NAME, DATA)
    assert fresh.get(NAME) == DATA


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("damage", LOST_LISTS.values(), ids=LOST_LISTS)
def test_a_blob_with_a_lost_list_and_no_digest_stays(store, root, damage, read, caplog):
    damage(root)
    content = (root / NAME).read_bytes()
    fresh = BlobStore(store.url)
    with pytest.raises(UncheckedBlobError, match=f"{NAME} cannot be checked"):
        read(fresh)
    assert NAME in caplog.text
    assert (root / NAME).read_bytes() == content
    assert not list(fresh.list_damaged())


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("damage", LOST_LISTS.values(), ids=LOST_LISTS)
def test_a_lost_list_is_computed_from_the_blob_if_the_blob_has_its_digest(store, root, damage, read):
    damage(root)
    is_intact = (root / NAME).read_bytes() == DATA
    fresh, digest = BlobStore(store.url), blake3(DATA).hexdigest()
    if is_intact:
        read(fresh, digest)
        assert (root / piece_list_name(NAME)).read_bytes() == PieceList.of(DATA).encode(NAME)
    else:
        with pytest.raises(DamagedBlobError, match="was set aside"):
            read(fresh, digest)
    assert (root / NAME).exists() == is_intact


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_pipe_in_place_of_a_blob_is_damage_and_not_opened(store, root, read):
    """To open it would block a thread until another process writes to it."""
    replace_by_pipe(root / NAME)
    assert store.size(NAME) == 0
    with pytest.raises(DamagedBlobError, match=NAME):
        read(BlobStore(store.url))
    assert store.size(NAME) is None


def test_a_store_that_is_read_only_does_not_claim_to_have_set_the_blob_aside(store, root):
    flip(root / NAME, -1)
    with pytest.raises(DamagedBlobError, match=r"was damaged in the store$"):
        BlobStore(store.url, read_only=True).get(NAME)
    with pytest.raises(DamagedBlobError, match=r"was damaged in the store, and was set aside$"):
        BlobStore(store.url).get(NAME)


@pytest.mark.parametrize("damage", list(DAMAGE)[:6])
def test_a_process_with_a_cached_list_notices_damage_of_the_blob(store, root, damage):
    assert store.get_range(NAME, 0, 10) == DATA[:10]
    DAMAGE[damage](root)
    with pytest.raises(DamagedBlobError):
        store.get_range(NAME, len(DATA) - 10, len(DATA))


def test_a_range_checks_only_the_pieces_that_it_touches(store, root):
    flip(root / NAME, MIB + 5)
    assert store.get_range(NAME, 0, MIB) == DATA[:MIB]
    assert store.get_ranges(NAME, [MIB - 10, 2 * MIB], 10) == [DATA[MIB - 10 : MIB], DATA[2 * MIB : 2 * MIB + 10]]
    with pytest.raises(DamagedBlobError):
        store.get_range(NAME, MIB, MIB + 1)


def test_a_blob_must_have_the_recorded_digest(store, root):
    digest = blake3(DATA).hexdigest()
    assert store.get(NAME, digest) == DATA
    assert not store.is_intact(NAME, blake3(OTHER).hexdigest())
    assert store.get(NAME, digest) == DATA


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_blob_that_a_later_result_has_replaced_stays(store, root, read, caplog):
    """A result's key does not name the processor, on which a few results depend, so two jobs may name two digests."""
    earlier, later = blake3(DATA).hexdigest(), blake3(OTHER).hexdigest()
    read(store, earlier)
    BlobStore(store.url).put(NAME, OTHER)
    with pytest.raises(ReplacedBlobError, match=f"{NAME} was replaced") as caught:
        read(store, earlier)
    assert not caught.value.is_set_aside
    read(store, later)
    assert store.get(NAME, later) == OTHER
    assert not list(store.list_damaged())


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_damaged_blob_with_another_digest_is_set_aside(store, root, read):
    flip(root / NAME, -1)
    with pytest.raises(DamagedBlobError, match="was set aside"):
        read(BlobStore(store.url), blake3(OTHER).hexdigest())
    assert store.size(NAME) is None


def test_an_upload_that_has_not_the_digest_in_its_name_is_set_aside(store):
    name = upload_name(blake3(OTHER).hexdigest())
    store.put(name, DATA)
    with pytest.raises(DamagedBlobError, match="was set aside"):
        store.get(name)
    assert store.size(name) is None


def test_a_sealed_blob_that_is_damaged_is_set_aside(store):
    name, other = statistic_name("ab" * 32), statistic_name("cd" * 32)
    for damage in (lambda path: flip(path, 0), lambda path: flip(path, -1), lambda path: path.write_bytes(b""),
                   lambda path: path.write_bytes(path.read_bytes()[:-1]), replace_by_pipe,
                   lambda path: path.write_bytes((Path(store.url) / other).read_bytes())):  # fmt: skip
        store.put_sealed(name, b"sums")
        store.put_sealed(other, b"others")
        assert store.get_sealed(name) == b"sums"
        damage(Path(store.url) / name)
        with pytest.raises(DamagedBlobError):
            store.get_sealed(name)
        assert store.size(name) is None


def test_a_pipe_in_place_of_a_blob_is_not_left_behind(store, root):
    replace_by_pipe(root / NAME)
    with pytest.raises(DamagedBlobError):
        store.get(NAME)
    assert not [path for path in root.rglob("*") if path.is_fifo()]


def test_an_intact_upload_whose_list_is_lost_gets_a_new_one(store):
    name = upload_name(blake3(DATA).hexdigest())
    store.put(name, DATA)
    for damage in (lambda path: path.unlink(), lambda path: flip(path, 30)):
        damage(Path(store.url) / piece_list_name(name))
        assert BlobStore(store.url).get_range(name, MIB, MIB + 9) == DATA[MIB : MIB + 9]
        assert (Path(store.url) / piece_list_name(name)).read_bytes() == PieceList.of(DATA).encode(name)


def test_the_list_of_a_stream_is_that_of_its_bytes(store):
    async def chunks():
        for start in range(0, len(DATA), 700_001):
            yield DATA[start : start + 700_001]

    asyncio.run(store.put_stream("incoming/a", chunks()))
    store.rename("incoming/a", NAME)
    assert BlobStore(store.url).get(NAME) == DATA
    assert (Path(store.url) / piece_list_name(NAME)).read_bytes() == PieceList.of(DATA).encode(NAME)


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB])
def test_digests_are_those_of_the_pieces(size):
    data, hasher = DATA[:size], PieceHasher()
    for start in range(0, size, 300_000):
        hasher.update(data[start : start + 300_000])
    pieces = hasher.finish()
    assert pieces == PieceList.of(data)
    assert (pieces.size, pieces.digest) == (size, blake3(data).hexdigest())
    assert pieces.piece_digests == b"".join(blake3(data[at : at + MIB]).digest() for at in range(0, size, MIB))


@pytest.mark.parametrize("is_directory", [False, True])
def test_blobs_that_are_set_aside_in_the_same_millisecond_are_all_kept(store, root, monkeypatch, is_directory):
    monkeypatch.setattr("masksmith_state.blobs.store.time.time_ns", lambda: 10**15)
    store.delete(NAME)
    for number in range(3):
        path = root / NAME / "file" if is_directory else root / NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(number))
        store.set_aside(NAME)
    contents = [path.read_text() for path in sorted((root / "damaged").rglob("*")) if path.is_file()]
    assert contents == ["0", "1", "2"]


def test_a_directory_in_place_of_a_blob_is_set_aside_before_it_is_written(store, root):
    async def chunks():
        yield DATA

    def replace():
        store.delete(NAME)
        (root / NAME / "folder").mkdir(parents=True)
        (root / NAME / "folder" / "file").write_text("kept")

    for write in (
        lambda: store.put(NAME, DATA),
        lambda: store.put_sealed(NAME, DATA),
        lambda: asyncio.run(store.put_stream(NAME, chunks())),
        lambda: (store.put("incoming/a", DATA), store.rename("incoming/a", NAME)),
        lambda: store.delete(NAME),
    ):
        replace()
        write()
        assert not (root / NAME).is_dir()
    assert len([path for path in (root / "damaged").rglob("file") if path.read_text() == "kept"]) == 5
