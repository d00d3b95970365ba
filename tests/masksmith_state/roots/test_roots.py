"""Directories and buckets as roots: what is read is of one version, and nothing leads outside."""

import errno
import os
import stat

import pytest
from support.buckets import BUCKET, Bucket, WeakeningProxy

from masksmith_state.errors import (
    ChangedSourceError,
    InstallationError,
    InvalidLocationError,
    NoRootError,
    RootUnavailableError,
)
from masksmith_state.roots.location import normalise
from masksmith_state.roots.roots import Roots
from masksmith_state.roots.setting import RootSetting
from masksmith_state.settings import StateSettings


@pytest.fixture(scope="module")
def bucket():
    with Bucket() as bucket:
        yield bucket


@pytest.fixture(params=["directory", "bucket"])
def root(request, tmp_path, monkeypatch):
    if request.param == "directory":
        url = str(tmp_path / "root")
        os.mkdir(url)
    else:
        for name, value in request.getfixturevalue("bucket").environment.items():
            monkeypatch.setenv(name, value)
        url = f"s3://{BUCKET}/{tmp_path.name}"
    return Roots([RootSetting(url=url)]).find(url)[1]


def test_a_written_blob_is_read_in_ranges(root):
    root.write("a/b.bin", iter([b"01234", b"56789"]))
    state = root.stat("a/b.bin")
    assert state.size == 10
    assert root.read("a/b.bin", 3, 7, state.version) == b"3456"
    assert root.read("a/b.bin", 4, 4, state.version) == b""
    assert root.get("a/b.bin", 10) == b"0123456789"
    with pytest.raises(InvalidLocationError, match="at most 9"):
        root.get("a/b.bin", 9)


@pytest.mark.parametrize("methods", [["GET"], ["HEAD", "GET"]], ids=" ".join)
def test_a_bucket_behind_a_proxy_that_weakens_etags_is_read(bucket, tmp_path, monkeypatch, methods):
    with WeakeningProxy(bucket.port, methods) as proxy:
        for name, value in bucket.environment_at(proxy.port).items():
            monkeypatch.setenv(name, value)
        url = f"s3://{BUCKET}/{tmp_path.name}"
        root = Roots([RootSetting(url=url)]).find(url)[1]
        root.write("a", [b"0123"])
        version = root.stat("a").version
        assert root.read("a", 1, 3, version) == b"12"
        root.write("a", [b"4567"])
        with pytest.raises(ChangedSourceError):
            root.read("a", 1, 3, version)


def test_a_file_that_changes_is_refused(root):
    root.write("a", [b"0123"])
    version = root.stat("a").version
    root.write("a", [b"4567"])
    assert root.stat("a").version != version
    for stop in (4, 0):
        with pytest.raises(ChangedSourceError, match=r"'.*/a' has changed since the job was submitted"):
            root.read("a", 0, stop, version)
    root.delete("a")
    for stop in (4, 0):
        with pytest.raises(ChangedSourceError, match="no longer exists"):
            root.read("a", 0, stop, version)
    with pytest.raises(FileNotFoundError):
        root.stat("a")


def test_a_range_beyond_the_end_is_a_change(root):
    root.write("a", [b"0123"])
    with pytest.raises(ChangedSourceError):
        root.read("a", 2, 6, root.stat("a").version)


def test_a_failed_write_leaves_the_old_file(root):
    def broken(size):
        yield bytes(size)
        raise ValueError("broken")

    root.write("folder/a", [b"old"])
    for size in (1, 9 * 2**20):
        with pytest.raises(ValueError, match="broken"):
            root.write("folder/a", broken(size))
    assert root.get("folder/a", 10) == b"old"
    assert root.list("folder") == {"a": 3}


def test_the_first_to_create_a_file_wins(root):
    assert root.create("a", b"first")
    assert not root.create("a", b"second")
    assert root.get("a", 10) == b"first"


@pytest.mark.parametrize("call", ["write", "create"])
def test_a_file_and_its_new_directories_survive_a_loss_of_power(directory, tmp_path, monkeypatch, call):
    """Each directory is flushed when it has the new entry."""
    flushed, fsync = {}, os.fsync

    def record(file):
        name = os.path.relpath(os.readlink(f"/proc/self/fd/{file}"), directory.url)
        flushed[name] = os.listdir(file) if stat.S_ISDIR(os.fstat(file).st_mode) else None
        fsync(file)

    monkeypatch.setattr("os.fsync", record)
    if call == "write":
        directory.write("a/b/file", [b"x"])
    else:
        assert directory.create("a/b/file", b"x")
    assert (flushed["."], flushed["a"], flushed["a/b"]) == (["a"], ["b"], ["file"])


def test_a_full_disk_leaves_no_part(directory, tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    for write in (lambda: directory.create("a", b"0123"), lambda: directory.write("a", [b"0123"])):
        with pytest.raises(RootUnavailableError, match="No space left"):
            write()
        assert list((tmp_path / "root").iterdir()) == []


def test_lists_are_of_files_below(root):
    for name in ("m/b", "m/a", "m/c/d", "mm"):
        root.write(name, [b"12"])
    assert list(root.list("m").items()) == [("a", 2), ("b", 2), ("c/d", 2)]
    assert root.list("nothing") == {}


def test_a_directory_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    directory, scandir = Roots([RootSetting(url=str(tmp_path))]).find(str(tmp_path))[1], os.scandir
    for name in ("m/a", "m/parts/b", "lost+found/c"):
        directory.write(name, [b"12"])

    def scandir_unless_private(folder):
        if os.path.basename(folder) in ("parts", "lost+found"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
        return scandir(folder)

    monkeypatch.setattr("os.scandir", scandir_unless_private)
    for path in ("", "m", "m/parts"):
        with pytest.raises(RootUnavailableError, match=r"'.*/m/parts' cannot be accessed: Permission denied"):
            directory.list(path)
    directory.delete("m/parts/b")
    os.rmdir(tmp_path / "m/parts")
    assert directory.list("") == {"m/a": 2}


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("/a/../b", "its part '..'"),
        ("/a//b", "its part ''"),
        ("a/b", "neither an absolute path"),
        ("file:///a", "neither an absolute path"),
        ("s3://key:secret@bucket/a", "it has credentials"),
        ("s3://bucket/a?X-Amz-Signature=1", "it has a query"),
        ("s3://bucket/./a", "its part '.'"),
        ("/a\n/b", "cannot be printed"),
        ("/" + "a" * 2000, "2001 characters"),
    ],
)
def test_malformed_locations_are_refused(location, reason):
    with pytest.raises(InvalidLocationError, match=reason.replace("?", r"\?")) as raised:
        normalise(location)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("end", ["?secret", "#secret", "#secret?x", "?x#secret"])
def test_a_url_is_named_without_query_and_fragment(end):
    with pytest.raises(InvalidLocationError, match="it has a query or a fragment") as raised:
        normalise(f"s3://bucket/a{end}")
    assert raised.value.location == "s3://bucket/a"


def test_a_location_belongs_to_the_innermost_root(tmp_path):
    roots = Roots([RootSetting(url=str(tmp_path)), RootSetting(url=str(tmp_path / "inner"))])
    assert roots.find(f"{tmp_path}/inner/a/b/")[0].url == str(tmp_path / "inner")
    assert roots.find(f"{tmp_path}/inner/a/b/")[2] == "a/b"
    assert roots.find(f"{tmp_path}/innermost")[2] == "innermost"
    assert roots.find(str(tmp_path))[2] == ""
    with pytest.raises(NoRootError, match="MASKSMITH_ROOTS"):
        roots.find(f"{tmp_path}-other/a")


def test_a_root_ends_where_an_inner_root_begins(root):
    outer, inner = (
        Roots([RootSetting(url=root.url), RootSetting(url=f"{root.url}/m/inner")]).find(url)[1]
        for url in (root.url, f"{root.url}/m/inner")
    )
    root.write("m/inner/a/secret", [b"0123"])
    outer.write("m/innermost", [b"0"])
    assert outer.list("") == {"m/innermost": 1}
    assert outer.list("m") == {"innermost": 1}
    assert inner.list("") == {"a/secret": 4}
    version = inner.stat("a/secret").version
    for call in (
        lambda: outer.stat("m/inner/a/secret"),
        lambda: outer.read("m/inner/a/secret", 0, 4, version),
        lambda: outer.list("m/inner/a"),
        lambda: outer.write("m/inner/a/secret", [b"4567"]),
        lambda: outer.create("m/inner/b", b"4567"),
        lambda: outer.delete("m/inner/a/secret"),
    ):
        with pytest.raises(InvalidLocationError, match="in another root, which is inside this one"):
            call()
    assert inner.list("") == {"a/secret": 4}
    assert inner.get("a/secret", 4) == b"0123"


def test_a_link_into_an_inner_root_is_refused(directory, tmp_path):
    (tmp_path / "root" / "inner").mkdir()
    (tmp_path / "root" / "inner" / "secret").write_bytes(b"secret")
    (tmp_path / "root" / "link").symlink_to("inner/secret")
    (tmp_path / "same").symlink_to("root/inner")
    for inner in (tmp_path / "root" / "inner", tmp_path / "same"):
        outer = Roots([RootSetting(url=directory.url), RootSetting(url=str(inner))]).find(directory.url)[1]
        for path in ("link", "inner/secret"):
            with pytest.raises(InvalidLocationError, match="in another root, which is inside this one"):
                outer.stat(path)


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    return Roots([RootSetting(url=str(tmp_path / "root"))]).find(str(tmp_path / "root"))[1]


@pytest.mark.parametrize(
    ("target", "path"), [("../outside/secret", "link"), ("../outside", "link/secret"), ("/etc/passwd", "link")]
)
def test_links_that_lead_outside_are_refused(directory, tmp_path, target, path):
    (tmp_path / "root" / "link").symlink_to(target)
    with pytest.raises(InvalidLocationError, match="leads outside the root"):
        directory.stat(path)
    with pytest.raises(InvalidLocationError, match="leads outside the root"):
        directory.read(path, 0, 1, "")
    if "/" in path:
        with pytest.raises(InvalidLocationError):
            directory.list("link")
        with pytest.raises(InvalidLocationError, match="its path contains a link"):
            directory.write("link/new", [b"1"])
        assert os.listdir(tmp_path / "outside") == ["secret"]


def test_links_inside_are_followed_for_reading(directory, tmp_path):
    """As in the cache of huggingface_hub, whose snapshots are links to blobs."""
    (tmp_path / "root" / "blobs").mkdir()
    (tmp_path / "root" / "blobs" / "b").write_bytes(b"0123")
    (tmp_path / "root" / "snapshot").mkdir()
    (tmp_path / "root" / "snapshot" / "file").symlink_to("../blobs/b")
    assert directory.list("snapshot") == {"file": 4}
    assert directory.get("snapshot/file", 10) == b"0123"


def test_a_path_where_a_file_can_be_written_is_writable_and_stays_as_it_is(directory, tmp_path):
    (tmp_path / "root" / "link").symlink_to("../outside/secret")
    directory.write("file", [b"1"])
    for path in ("file", "link", "new", "new/folder/file"):
        directory.check_writable(path)
    assert sorted(os.listdir(tmp_path / "root")) == ["file", "link"]
    with pytest.raises(InvalidLocationError, match="a file in place of a directory"):
        directory.check_writable("file/below")


def test_a_link_that_is_written_over_leaves_its_target(directory, tmp_path):
    (tmp_path / "root" / "link").symlink_to("../outside/secret")
    directory.write("link", [b"new"])
    assert (tmp_path / "outside" / "secret").read_bytes() == b"secret"
    assert (tmp_path / "root" / "link").read_bytes() == b"new"


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink(path.name, path)])
def test_a_path_that_is_no_file_is_rejected(directory, tmp_path, make):
    make(tmp_path / "root" / "thing")
    with pytest.raises(InvalidLocationError):
        directory.stat("thing")


@pytest.mark.parametrize("is_empty", [True, False])
@pytest.mark.parametrize(
    "call",
    [
        lambda root: root.check_writable("a/b"),
        lambda root: root.write("a/b", [b"1"]),
        lambda root: root.create("a/b", b"1"),
        lambda root: root.delete("a/b"),
        lambda root: root.get("a/b", 10),
    ],
    ids=["check_writable", "write", "create", "delete", "get"],
)
def test_a_directory_in_place_of_a_file_is_rejected(directory, tmp_path, call, is_empty):
    """A root that is unavailable would be tried again instead."""
    folder = tmp_path / "root" / "a" / "b"
    folder.mkdir(parents=True)
    if not is_empty:
        (folder / "c").touch()
    with pytest.raises(InvalidLocationError, match=r"a/b.*it is (a directory in place of|not) a file"):
        call(directory)
    assert os.listdir(folder.parent) == ["b"]


def test_a_name_that_is_too_long_is_rejected(directory):
    for path in ("a" * 300 + "/file", "a" * 300):
        for call in (lambda path=path: directory.write(path, [b"1"]), lambda path=path: directory.create(path, b"1")):
            with pytest.raises(InvalidLocationError, match="longer than the file system allows"):
                call()


def test_outputs_are_as_readable_as_their_directory(directory, tmp_path):
    os.chmod(tmp_path / "root", 0o750)
    umask = os.umask(0o077)
    try:
        directory.write("new/file", [b"1"])
    finally:
        os.umask(umask)
    assert (tmp_path / "root" / "new").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "root" / "new" / "file").stat().st_mode & 0o777 == 0o640


def test_a_directory_that_is_gone_is_unavailable(directory, tmp_path):
    directory.write("a", [b"1"])
    version = directory.stat("a").version
    (tmp_path / "root").rename(tmp_path / "away")
    for call in (lambda: directory.stat("a"), lambda: directory.read("a", 0, 1, version), lambda: directory.list("")):
        with pytest.raises(RootUnavailableError, match="cannot be accessed: No such file"):
            call()
    (tmp_path / "away").rename(tmp_path / "root")
    assert directory.read("a", 0, 1, version) == b"1"


def test_a_file_without_permission_is_named(directory, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (tmp_path / "root" / "a").write_bytes(b"1")
    os.chmod(tmp_path / "root" / "a", 0)
    with pytest.raises(RootUnavailableError, match="Permission denied"):
        directory.stat("a")


def test_a_bucket_that_does_not_exist_is_named(bucket, monkeypatch):
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    root = Roots([RootSetting(url="s3://nowhere/a")]).find("s3://nowhere/a")[1]
    with pytest.raises(RootUnavailableError, match=r"s3://nowhere/a.*404") as raised:
        root.stat("b")
    assert "127.0.0.1" not in str(raised.value)


@pytest.mark.parametrize(("root", "store"), [("data", "data/store"), ("data/store/a", "data/store"), ("a", "a")])
def test_a_root_and_the_store_are_apart(tmp_path, root, store):
    with pytest.raises(InstallationError, match="keep them apart"):
        Roots([RootSetting(url=str(tmp_path / root))]).check_apart(str(tmp_path / store))
    Roots([RootSetting(url=str(tmp_path / "other"))]).check_apart(str(tmp_path / store))


def test_the_setting_is_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("MASKSMITH_ROOTS", '[{"url": "/srv/models/", "read": ["*"]}, {"url": "s3://b/p"}]')
    roots = StateSettings().roots
    assert [(root.url, root.read, root.write) for root in roots] == [("/srv/models", ["*"], []), ("s3://b/p", [], [])]
    monkeypatch.setenv("MASKSMITH_ROOTS", '[{"url": "srv"}]')
    with pytest.raises(ValueError, match="neither an absolute path"):
        StateSettings()
